package changelog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go"
)

// The layout of a Kafka record batch, format 2, behind the length of the record
// set (4 bytes); https://kafka.apache.org/documentation/#recordbatch. Big endian.
const (
	setLength       = 4
	batchLength     = setLength + 8
	batchEpoch      = setLength + 12
	batchMagic      = setLength + 16
	batchCRC        = setLength + 17
	batchAttributes = setLength + 21
	batchLastDelta  = setLength + 23
	batchFirstTime  = setLength + 27
	batchMaxTime    = setLength + 35
	batchProducer   = setLength + 43 // id (8), epoch (2), sequence (4): -1 for none
	batchCount      = setLength + 57
	batchRecords    = setLength + 61
)

// encoder makes record batches of frames. kafka-go could do it too; it would
// compress again at each retry, and keep several zstd encoders with 8 MB windows
// (120 MB resident, against 60 MB so).
type encoder struct {
	codec kafka.Compression
	zstd  *zstd.Encoder
	large *zstd.Encoder // zstd for requests of largeRequest and more
	raw   []byte        // reused
}

func newEncoder(c Compression) (*encoder, error) {
	codec, err := c.codec()
	if err != nil {
		return nil, err
	}
	e := &encoder{codec: codec}
	if codec == kafka.Zstd {
		if e.zstd, err = newZstd(zstd.SpeedFastest, zstdWindow); err != nil {
			return nil, err
		}
		if e.large, err = newZstd(zstd.SpeedDefault, largeWindow); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func newZstd(level zstd.EncoderLevel, window int) (*zstd.Encoder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return z, nil
}

const (
	// zstdWindow: batches look back to nodes written a few blocks ago at most.
	zstdWindow = 1 << 20
	// largeRequest is sent under backlog only. It holds earlier versions of the same trie nodes, megabytes apart, which
	// the tables of the fastest level are too small to remember. In a request of one block there are few: there the
	// better level costs twice the time, for four percent. DESIGN.md has the figures.
	largeRequest = 2 << 20
	largeWindow  = 4 << 20
)

// encode returns the frames as a record set of one batch, in memory of its own:
// a request that timed out may still be reading it.
func (e *encoder) encode(frames []Frame, size int) ([]byte, error) {
	first := frames[0].Time.UnixMilli()
	newest := first
	raw := e.raw[:0]
	for i := range frames {
		f := &frames[i]
		delta := f.Time.UnixMilli() - first
		newest = max(newest, first+delta)
		// Behind the length: attributes (1), time and offset deltas, no key (-1),
		// the value's length, the value, no headers.
		body := 1 + varintLen(delta) + varintLen(int64(i)) + varintLen(-1) + varintLen(int64(f.EncodedLen())) + f.EncodedLen() + varintLen(0)
		raw = binary.AppendVarint(raw, int64(body))
		raw = append(raw, 0)
		raw = binary.AppendVarint(raw, delta)
		raw = binary.AppendVarint(raw, int64(i))
		raw = binary.AppendVarint(raw, -1)
		raw = binary.AppendVarint(raw, int64(f.EncodedLen()))
		raw = f.AppendTo(raw)
		raw = binary.AppendVarint(raw, 0)
	}
	e.raw = raw
	set := make([]byte, batchRecords, batchRecords+size*3/4)
	set, err := e.compress(set, raw)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(set, uint32(len(set)-setLength))
	binary.BigEndian.PutUint32(set[batchLength:], uint32(len(set)-batchEpoch))
	binary.BigEndian.PutUint32(set[batchEpoch:], ^uint32(0))
	set[batchMagic] = 2
	binary.BigEndian.PutUint16(set[batchAttributes:], uint16(e.codec))
	binary.BigEndian.PutUint32(set[batchLastDelta:], uint32(len(frames)-1))
	binary.BigEndian.PutUint64(set[batchFirstTime:], uint64(first))
	binary.BigEndian.PutUint64(set[batchMaxTime:], uint64(newest))
	for i := batchProducer; i < batchCount; i++ {
		set[i] = 0xff
	}
	binary.BigEndian.PutUint32(set[batchCount:], uint32(len(frames)))
	binary.BigEndian.PutUint32(set[batchCRC:], crc32.Checksum(set[batchAttributes:], castagnoli))
	return set, nil
}

func (e *encoder) compress(dst, raw []byte) ([]byte, error) {
	switch e.codec {
	case 0:
		return append(dst, raw...), nil
	case kafka.Zstd:
		if len(raw) >= largeRequest {
			return e.large.EncodeAll(raw, dst), nil
		}
		return e.zstd.EncodeAll(raw, dst), nil
	}
	// The framing of snappy and lz4 that Kafka's own client expects.
	out := bytes.NewBuffer(dst)
	w := e.codec.Codec().NewWriter(out)
	if _, err := w.Write(raw); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out.Bytes(), nil
}

func varintLen(v int64) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutVarint(b[:], v)
}

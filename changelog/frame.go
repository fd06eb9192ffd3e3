package changelog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// FormatVersion is the version of the frames that this release writes. It reads
// every version from 1 to this one.
const FormatVersion = 1

// FrameOverhead is the number of bytes a frame adds to its payload.
const FrameOverhead = 56

// MaxPayload is the largest payload that fits, with the frame's and Kafka's own
// overhead, into a message of Kafka's default max.message.bytes (1,048,588), so
// that a topic that somebody created with defaults still holds every frame.
const MaxPayload = 1_000_000

const (
	frameMagic = "DRVR"

	offVersion  = 4
	offKind     = 5
	offReserved = 6
	offTimeline = 8
	offFirst    = 16
	offCount    = 24
	offPart     = 28
	offParts    = 32
	offBatchCRC = 36
	offTime     = 40
	offLength   = 48
	offCRC      = 52
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Kind says what a frame carries.
type Kind uint8

// The kinds of format version 1.
const (
	// KindBatch carries a journal record, or one part of it.
	KindBatch Kind = 1
	// KindHeartbeat carries the master's view of the chain ([Heartbeat]).
	KindHeartbeat Kind = 2
	// KindTimelineStart opens a timeline ([TimelineStart]).
	KindTimelineStart Kind = 3
)

// String returns the kind's name as `drover log inspect` prints it.
func (k Kind) String() string {
	switch k {
	case KindBatch:
		return "batch"
	case KindHeartbeat:
		return "heartbeat"
	case KindTimelineStart:
		return "timeline-start"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Frame is one message of the change log.
type Frame struct {
	Kind     Kind
	Timeline uint64 // from 1
	// First is the first sequence of the batch. A heartbeat has the next
	// sequence to come, a timeline start its base + 1.
	First uint64
	// Count is the number of sequences of the whole batch, whichever part this
	// is; 0 for the other kinds.
	Count uint32
	Part  uint32 // from 1
	Parts uint32
	// BatchCRC is the CRC-32C of the whole batch. Parts are joined only when
	// First, Count, Parts and BatchCRC agree, so that two attempts never mix.
	BatchCRC uint32
	Time     time.Time // when the master made the frame
	Payload  []byte
}

// Last returns the last sequence of a batch, First-1 for the other kinds.
func (f *Frame) Last() uint64 { return f.First + uint64(f.Count) - 1 }

// EncodedLen returns the number of bytes that AppendTo adds.
func (f *Frame) EncodedLen() int { return FrameOverhead + len(f.Payload) }

// AppendTo appends the frame's encoding to dst.
func (f *Frame) AppendTo(dst []byte) []byte {
	header := f.header()
	dst = append(dst, header[:]...)
	return append(dst, f.Payload...)
}

func (f *Frame) header() (h [FrameOverhead]byte) {
	copy(h[:], frameMagic)
	h[offVersion] = FormatVersion
	h[offKind] = byte(f.Kind)
	binary.LittleEndian.PutUint64(h[offTimeline:], f.Timeline)
	binary.LittleEndian.PutUint64(h[offFirst:], f.First)
	binary.LittleEndian.PutUint32(h[offCount:], f.Count)
	binary.LittleEndian.PutUint32(h[offPart:], f.Part)
	binary.LittleEndian.PutUint32(h[offParts:], f.Parts)
	binary.LittleEndian.PutUint32(h[offBatchCRC:], f.BatchCRC)
	binary.LittleEndian.PutUint64(h[offTime:], uint64(f.Time.UnixNano()))
	binary.LittleEndian.PutUint32(h[offLength:], uint32(len(f.Payload)))
	sum := crc32.Checksum(h[:offCRC], castagnoli)
	sum = crc32.Update(sum, castagnoli, f.Payload)
	binary.LittleEndian.PutUint32(h[offCRC:], sum)
	return h
}

// Decode reads a frame from a Kafka message's value. The frame's payload is a
// slice of the message. Errors wrap [ErrBadFrame] with the reason, or
// [ErrFutureVersion] with both versions; no input makes it panic.
func Decode(message []byte) (Frame, error) {
	if len(message) == 0 {
		return Frame{}, badFrame("empty message")
	}
	if len(message) <= offVersion || string(message[:offVersion]) != frameMagic {
		return Frame{}, badFrame("does not start with %q: not a frame of a Drover change log", frameMagic)
	}
	if v := message[offVersion]; v > FormatVersion {
		return Frame{}, fmt.Errorf("%w: frame has format version %d, this release reads up to %d: upgrade this node first, then the master",
			ErrFutureVersion, v, FormatVersion)
	} else if v == 0 {
		return Frame{}, badFrame("format version 0")
	}
	if len(message) < FrameOverhead {
		return Frame{}, badFrame("%d bytes, a header has %d", len(message), FrameOverhead)
	}
	length := int64(binary.LittleEndian.Uint32(message[offLength:]))
	if have := int64(len(message) - FrameOverhead); have != length {
		return Frame{}, badFrame("payload of %d bytes, header says %d", have, length)
	}
	payload := message[FrameOverhead:]
	sum := crc32.Checksum(message[:offCRC], castagnoli)
	sum = crc32.Update(sum, castagnoli, payload)
	if want := binary.LittleEndian.Uint32(message[offCRC:]); sum != want {
		return Frame{}, badFrame("checksum %08x, header says %08x", sum, want)
	}
	f := Frame{
		Kind:     Kind(message[offKind]),
		Timeline: binary.LittleEndian.Uint64(message[offTimeline:]),
		First:    binary.LittleEndian.Uint64(message[offFirst:]),
		Count:    binary.LittleEndian.Uint32(message[offCount:]),
		Part:     binary.LittleEndian.Uint32(message[offPart:]),
		Parts:    binary.LittleEndian.Uint32(message[offParts:]),
		BatchCRC: binary.LittleEndian.Uint32(message[offBatchCRC:]),
		Time:     time.Unix(0, int64(binary.LittleEndian.Uint64(message[offTime:]))),
		Payload:  payload,
	}
	if message[offReserved] != 0 || message[offReserved+1] != 0 {
		return Frame{}, badFrame("reserved bytes are not zero")
	}
	if err := f.check(); err != nil {
		return Frame{}, err
	}
	return f, nil
}

// check holds for every frame that this package writes or accepts.
func (f *Frame) check() error {
	switch {
	case f.Timeline == 0:
		return badFrame("timeline 0")
	case f.Part == 0 || f.Part > f.Parts:
		return badFrame("part %d of %d", f.Part, f.Parts)
	case f.First == 0:
		return badFrame("first sequence 0")
	}
	switch f.Kind {
	case KindBatch:
		if f.Count == 0 || len(f.Payload) == 0 {
			return badFrame("batch with %d sequences and %d bytes", f.Count, len(f.Payload))
		}
		if f.First > math.MaxUint64-uint64(f.Count) {
			return badFrame("sequences %d + %d overflow", f.First, f.Count)
		}
	case KindHeartbeat, KindTimelineStart:
		if f.Count != 0 || f.Parts != 1 {
			return badFrame("%s with count %d in %d parts", f.Kind, f.Count, f.Parts)
		}
	default:
		return badFrame("unknown kind %d", uint8(f.Kind))
	}
	return nil
}

func badFrame(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadFrame, fmt.Sprintf(format, args...))
}

// SplitBatch cuts a journal record into frames whose payloads are at most
// maxPayload bytes ([MaxPayload] when 0). Payloads are slices of record. The cut
// depends on the record's length and the number of parts alone: parts of equal
// First, BatchCRC and Parts hold the same bytes whoever cut them, which is what
// lets the [Sequencer] take each from whichever attempt brought it first.
func SplitBatch(timeline, first uint64, count uint32, record []byte, maxPayload int, at time.Time) []Frame {
	if maxPayload <= 0 {
		maxPayload = MaxPayload
	}
	parts := max(1, (len(record)+maxPayload-1)/maxPayload)
	size := (len(record) + parts - 1) / parts
	// Rounding the size up can leave nothing for the last parts.
	if size > 0 {
		parts = (len(record) + size - 1) / size
	}
	crc := crc32.Checksum(record, castagnoli)
	frames := make([]Frame, parts)
	for i := range frames {
		frames[i] = Frame{
			Kind: KindBatch, Timeline: timeline, First: first, Count: count,
			Part: uint32(i + 1), Parts: uint32(parts), BatchCRC: crc, Time: at,
			Payload: record[i*size : min(len(record), (i+1)*size)],
		}
	}
	return frames
}

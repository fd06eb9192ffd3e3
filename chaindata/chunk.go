package chaindata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The journal format: 32 KiB blocks of chunks; a chunk is a masked CRC-32C over type and payload (4, little endian), the
// payload's length (2, little endian), a type (1), the payload. Fewer than 7 bytes left in a block are zero.
const (
	blockSize       = 32 << 10
	chunkHeaderSize = 7
	chunkFull       = 1
	chunkFirst      = 2
	chunkMiddle     = 3
	chunkLast       = 4

	readSize = 256 << 10 // bytes asked of the file at once
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkCRC is LevelDB's masked CRC-32C of type and payload.
func chunkCRC(typeAndPayload []byte) uint32 {
	c := crc32.Update(0, castagnoli, typeAndPayload)
	return (c>>15 | c<<17) + 0xa282ead8
}

// errMore: what there is of the file ends before the next record does.
var errMore = errors.New("the file ends before the record does")

// chunkError: the bytes at the offset are not a chunk.
type chunkError struct {
	offset int64
	reason string
}

func (e *chunkError) Error() string { return fmt.Sprintf("offset %d: %s", e.offset, e.reason) }

// chunkReader reads the records of a file that may still be growing. After errMore, next goes on where it stopped when
// the file has grown; no byte is checksummed twice.
type chunkReader struct {
	src io.ReaderAt

	buf  []byte
	base int64 // file offset of buf[0]
	n    int   // buf[:n] was read
	rec  int   // buf[rec:] starts the record being assembled
	pos  int   // next chunk header to look at
	size int   // payload bytes of the record so far
	part bool  // a first chunk was seen
}

func newChunkReader(src io.ReaderAt) *chunkReader {
	return &chunkReader{src: src, buf: make([]byte, readSize)}
}

// reset starts over on another file and keeps the buffer.
func (r *chunkReader) reset(src io.ReaderAt) {
	r.src, r.base, r.n, r.rec = src, 0, 0, 0
	r.rewind()
}

// offset is where the next record starts, or the padding before it.
func (r *chunkReader) offset() int64 { return r.base + int64(r.rec) }

// tornBytes is the number of bytes read behind the last whole record, 0 when they are but padding.
func (r *chunkReader) tornBytes() int64 {
	if !r.torn() {
		return 0
	}
	return int64(r.n - r.rec)
}

// torn tells whether something other than padding was read behind the last whole record.
func (r *chunkReader) torn() bool { return r.part || r.pos != r.n }

// reload forgets what was read behind the last whole record, so that the next call reads it from the file again.
func (r *chunkReader) reload() {
	r.n = r.rec
	r.rewind()
}

func (r *chunkReader) rewind() { r.pos, r.size, r.part = r.rec, 0, false }

// next returns the next whole record in memory of its own. Errors: errMore, *chunkError, or the file's own.
func (r *chunkReader) next() ([]byte, error) {
	for {
		need, done, err := r.chunk()
		if err != nil {
			return nil, err
		}
		if done {
			return r.take(), nil
		}
		if need > 0 {
			if err := r.fill(need); err != nil {
				return nil, err
			}
		}
	}
}

// chunk looks at the chunk at pos. need > 0: that many bytes from pos on must be read first.
func (r *chunkReader) chunk() (need int, done bool, err error) {
	left := blockSize - int((r.base+int64(r.pos))%blockSize)
	if left < chunkHeaderSize {
		if r.n-r.pos < left {
			return left, false, nil
		}
		r.pos += left
		return 0, false, nil
	}
	if r.n-r.pos < chunkHeaderSize {
		return chunkHeaderSize, false, nil
	}
	h := r.buf[r.pos:r.n]
	crc, length, kind := binary.LittleEndian.Uint32(h), int(binary.LittleEndian.Uint16(h[4:])), h[6]
	total := chunkHeaderSize + length
	switch {
	case crc == 0 && length == 0 && kind == 0:
		return 0, false, r.bad("zeros where a chunk should start")
	case kind < chunkFull || kind > chunkLast:
		return 0, false, r.bad(fmt.Sprintf("unknown chunk type %d", kind))
	case total > left:
		return 0, false, r.bad("chunk runs past its block")
	case len(h) < total:
		return total, false, nil
	case chunkCRC(h[6:total]) != crc:
		return 0, false, r.bad("checksum mismatch")
	case r.part && (kind == chunkFull || kind == chunkFirst):
		return 0, false, r.bad("a record starts before the one before it ended")
	case !r.part && (kind == chunkMiddle || kind == chunkLast):
		return 0, false, r.bad("part of a record without its start")
	}
	r.pos += total
	r.size += length
	r.part = true
	return 0, kind == chunkFull || kind == chunkLast, nil
}

func (r *chunkReader) bad(reason string) error {
	return &chunkError{offset: r.base + int64(r.pos), reason: reason}
}

// take copies the record's payloads, which chunk has checked, out of the buffer.
func (r *chunkReader) take() []byte {
	out := make([]byte, 0, r.size)
	for at := r.rec; at < r.pos; {
		left := blockSize - int((r.base+int64(at))%blockSize)
		if left < chunkHeaderSize {
			at += left
			continue
		}
		length := int(binary.LittleEndian.Uint16(r.buf[at+4:]))
		out = append(out, r.buf[at+chunkHeaderSize:at+chunkHeaderSize+length]...)
		at += chunkHeaderSize + length
	}
	r.rec = r.pos
	r.rewind()
	return out
}

// fill reads on until need bytes from pos on are there. errMore when the file does not have them.
func (r *chunkReader) fill(need int) error {
	for r.n-r.pos < need {
		if len(r.buf)-r.n < readSize/2 || r.pos+need > len(r.buf) {
			r.makeRoom(need)
		}
		n, err := r.src.ReadAt(r.buf[r.n:], r.base+int64(r.n))
		r.n += n
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				return errMore
			}
			return err
		}
	}
	return nil
}

// makeRoom moves the record to the buffer's start, or doubles the buffer when the record itself fills it.
func (r *chunkReader) makeRoom(need int) {
	buf := r.buf
	switch kept := r.n - r.rec; {
	case kept+max(need, readSize/2) > len(buf):
		buf = make([]byte, max(2*len(buf), kept+need))
	case len(buf) > 4*readSize && kept < readSize/2:
		buf = make([]byte, readSize) // a giant record has passed: give its memory back
	case r.rec == 0:
		return
	}
	copy(buf, r.buf[r.rec:r.n])
	r.buf = buf
	r.base += int64(r.rec)
	r.n -= r.rec
	r.pos -= r.rec
	r.rec = 0
}

// tornTail tells whether a bad chunk at the offset is the end of a file whose last pages never reached the disk (a power
// cut leaves zeros) rather than damage: nothing readable follows, and the file ends in at least a sector of zeros.
func tornTail(src io.ReaderAt, offset int64) (bool, error) {
	const sector = 512
	var zeros int64
	buf := make([]byte, blockSize)
	for at := offset - offset%blockSize; ; at += blockSize {
		n, err := src.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		block := buf[:n]
		if at <= offset {
			block = block[min(int(offset-at), n):]
		} else if wholeChunk(block) {
			return false, nil
		}
		for _, c := range block {
			if zeros++; c != 0 {
				zeros = 0
			}
		}
		if n < blockSize {
			return zeros >= sector, nil
		}
	}
}

// wholeChunk tells whether the block starts with a chunk that can be read.
func wholeChunk(block []byte) bool {
	if len(block) < chunkHeaderSize {
		return false
	}
	total := chunkHeaderSize + int(binary.LittleEndian.Uint16(block[4:]))
	kind := block[6]
	return kind >= chunkFull && kind <= chunkLast && total <= len(block) &&
		chunkCRC(block[6:total]) == binary.LittleEndian.Uint32(block)
}

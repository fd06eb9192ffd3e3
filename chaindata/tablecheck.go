package chaindata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/golang/snappy"
)

// ErrCorruptTable means: bytes of a table are not what LevelDB wrote.
var ErrCorruptTable = errors.New("corrupt table")

// The format of a table (goleveldb table/table.go): data blocks, filter block, metaindex block, index block, footer. Each
// block is followed by its compression (1 byte) and the masked CRC-32C of block and compression (4).
const (
	tableFooter  = 48
	tableTrailer = 5
	tableMagic   = "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
)

// CheckTable compares every block of a table with its checksum, the filter's too, and finds that blocks and footer are all
// there is: no byte goes unchecked. It holds one block in memory. ErrCorruptTable, or the reader's error.
func CheckTable(r io.ReaderAt, size int64) error {
	c := &tableChecker{r: r, size: size}
	if size < tableFooter {
		return c.bad(0, "shorter than a footer")
	}
	var footer [tableFooter]byte
	if _, err := r.ReadAt(footer[:], size-tableFooter); err != nil {
		return err
	}
	if string(footer[40:]) != tableMagic {
		return c.bad(size-8, "no table's magic number at the end")
	}
	meta, n := decodeHandle(footer[:40])
	index, k := decodeHandle(footer[n:40])
	if n == 0 || k == 0 {
		return c.bad(size-tableFooter, "its footer cannot be read")
	}
	for _, pad := range footer[n+k : 40] {
		if pad != 0 {
			return c.bad(size-tableFooter, "its footer is not padded with zeros")
		}
	}
	for _, handles := range []blockHandle{index, meta} {
		content, err := c.block(handles)
		if err != nil {
			return err
		}
		if err := c.entries(handles, content); err != nil {
			return err
		}
	}
	if c.covered+tableFooter != size {
		return c.bad(0, fmt.Sprintf("its blocks make up %d bytes of %d", c.covered, size-tableFooter))
	}
	return nil
}

type blockHandle struct{ offset, length uint64 }

// decodeHandle returns the number of bytes read, 0 when b holds no handle.
func decodeHandle(b []byte) (blockHandle, int) {
	offset, n := binary.Uvarint(b)
	if n <= 0 {
		return blockHandle{}, 0
	}
	length, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return blockHandle{}, 0
	}
	return blockHandle{offset, length}, n + m
}

type tableChecker struct {
	r       io.ReaderAt
	size    int64
	covered int64
	buf     []byte
}

func (c *tableChecker) bad(offset int64, reason string) error {
	return fmt.Errorf("%w at offset %d: %s", ErrCorruptTable, offset, reason)
}

var castagnoliTable = crc32.MakeTable(crc32.Castagnoli)

// block checks one block and returns its content as it is stored, with its compression at the end.
func (c *tableChecker) block(h blockHandle) ([]byte, error) {
	end := uint64(c.size - tableFooter)
	if h.offset > end || h.length > end || h.offset+h.length+tableTrailer > end {
		return nil, c.bad(int64(h.offset), "a block reaches beyond the end")
	}
	n := int(h.length) + tableTrailer
	if cap(c.buf) < n {
		c.buf = make([]byte, n+n/2)
	}
	b := c.buf[:n]
	if _, err := c.r.ReadAt(b, int64(h.offset)); err != nil {
		return nil, err
	}
	sum := crc32.Checksum(b[:h.length+1], castagnoliTable)
	if masked := (sum>>15 | sum<<17) + 0xa282ead8; masked != binary.LittleEndian.Uint32(b[h.length+1:]) {
		return nil, c.bad(int64(h.offset), "the checksum of the block does not match")
	}
	c.covered += int64(n)
	return b[:h.length+1], nil
}

// entries checks the blocks that an index or the metaindex points to. A block is entries (shared, own and value's length,
// own key, value), restart points (4 each), their number (4).
func (c *tableChecker) entries(h blockHandle, stored []byte) error {
	content, compression := append([]byte{}, stored[:len(stored)-1]...), stored[len(stored)-1]
	if compression == 1 {
		var err error
		if content, err = snappy.Decode(nil, content); err != nil {
			return c.bad(int64(h.offset), err.Error())
		}
	}
	if len(content) < 4 {
		return c.bad(int64(h.offset), "a block without restart points")
	}
	restarts := uint64(binary.LittleEndian.Uint32(content[len(content)-4:]))
	if restarts > uint64(len(content))/4-1 {
		return c.bad(int64(h.offset), "too many restart points")
	}
	entries := content[:uint64(len(content))-4-4*restarts]
	for len(entries) > 0 {
		d := fieldDecoder{data: entries}
		d.uvarint("shared")
		own, value := d.uvarint("own"), d.uvarint("value")
		if d.err != nil || own > uint64(len(d.data)) || value > uint64(len(d.data))-own {
			return c.bad(int64(h.offset), "an entry is cut short")
		}
		target, n := decodeHandle(d.data[own : own+value])
		if n == 0 {
			return c.bad(int64(h.offset), "an entry is no block's handle")
		}
		if _, err := c.block(target); err != nil {
			return err
		}
		entries = d.data[own+value:]
	}
	return nil
}

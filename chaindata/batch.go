// Package chaindata reads a geth chaindata directory (LevelDB, with the freezer below it) from outside the process that
// writes it: the journals of a live database as a gapless stream of batches, the sequence of a database at rest, whether
// it is a database that Drover can capture, and a consistent copy of it while it is being written.
//
// Formats follow github.com/syndtr/goleveldb v1.0.1-0.20210819022825-2ae1ddf74ef7, the version geth v1.17.7 uses.
package chaindata

import (
	"encoding/binary"
	"fmt"
	"iter"
)

const (
	batchHeaderSize = 12 // first sequence (8, little endian), count (4)
	opDelete        = 0
	opPut           = 1
)

// Batch is one atomic LevelDB write: a journal record as it stands on disk.
type Batch struct {
	First uint64 // sequence of the first operation
	Count uint32 // number of operations; each takes one sequence
	Data  []byte // the journal record's own bytes, the 12-byte header included; owned by the receiver
}

// Last is the sequence of the last operation.
func (b Batch) Last() uint64 { return b.First + uint64(b.Count) - 1 }

// Op is a put or a delete of a batch. Key and Value are slices into Batch.Data.
type Op struct {
	Delete     bool
	Key, Value []byte
}

// ParseBatch reads the header of a journal record and checks that exactly as many operations follow as it announces.
// It keeps record as Batch.Data and allocates nothing unless it fails.
func ParseBatch(record []byte) (Batch, error) {
	if len(record) < batchHeaderSize {
		return Batch{}, fmt.Errorf("batch of %d bytes is shorter than its header", len(record))
	}
	b := Batch{
		First: binary.LittleEndian.Uint64(record),
		Count: binary.LittleEndian.Uint32(record[8:]),
		Data:  record,
	}
	if b.Count > 0 && b.First+uint64(b.Count)-1 < b.First {
		return Batch{}, fmt.Errorf("batch at sequence %d with %d operations overflows the sequence", b.First, b.Count)
	}
	at, ops := batchHeaderSize, uint32(0)
	for at < len(record) {
		next, reason := skipOp(record, at)
		if reason != "" {
			return Batch{}, fmt.Errorf("batch at sequence %d: operation %d at byte %d: %s", b.First, ops, at, reason)
		}
		if ops++; ops > b.Count {
			return Batch{}, fmt.Errorf("batch at sequence %d holds more than the %d operations announced", b.First, b.Count)
		}
		at = next
	}
	if ops != b.Count {
		return Batch{}, fmt.Errorf("batch at sequence %d holds %d operations, announced are %d", b.First, ops, b.Count)
	}
	return b, nil
}

func skipOp(data []byte, at int) (next int, reason string) {
	kind := data[at]
	if kind > opPut {
		return 0, "unknown kind"
	}
	at++
	for range int(kind) + 1 {
		length, n := binary.Uvarint(data[at:])
		if n <= 0 || length > uint64(len(data)-at-n) {
			return 0, "length runs past the batch"
		}
		at += n + int(length)
	}
	return at, ""
}

// Ops yields the operations in order. The batch must come from ParseBatch or a Follower; on other bytes it stops early.
func (b Batch) Ops() iter.Seq[Op] {
	return func(yield func(Op) bool) {
		data := b.Data
		for at := batchHeaderSize; at < len(data); {
			kind := data[at]
			at++
			key, n := field(data, at)
			if n == 0 || kind > opPut {
				return
			}
			at += n
			op := Op{Delete: kind == opDelete, Key: key}
			if kind == opPut {
				if op.Value, n = field(data, at); n == 0 {
					return
				}
				at += n
			}
			if !yield(op) {
				return
			}
		}
	}
}

// field returns a length-prefixed field and the bytes it takes, prefix included; 0 when it does not fit.
func field(data []byte, at int) ([]byte, int) {
	length, n := binary.Uvarint(data[at:])
	if n <= 0 || length > uint64(len(data)-at-n) {
		return nil, 0
	}
	end := at + n + int(length)
	return data[at+n : end : end], n + int(length)
}

package replica

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// sorter orders the operations of a group by key and keeps the last of each key. The group is atomic, so nobody can
// tell; but goleveldb's skip list takes neighbours in half the time that it takes for the scattered hashes of trie nodes.
// It runs ahead on the decoding goroutine.
type sorter struct {
	ops []sortOp
	out []byte
}

type sortOp struct {
	prefix     uint64 // the key's first 8 bytes, big endian
	at, end    uint32 // of the whole operation
	key, keyTo uint32
}

// sort returns the operations in order of keys. The result is valid until the next call.
func (s *sorter) sort(data []byte) ([]byte, int) {
	s.ops = s.ops[:0]
	for at := 0; at < len(data); {
		op := sortOp{at: uint32(at)}
		put := data[at] == 1
		length, n := binary.Uvarint(data[at+1:])
		op.key = uint32(at + 1 + n)
		op.keyTo = op.key + uint32(length)
		at = int(op.keyTo)
		if put {
			length, n = binary.Uvarint(data[at:])
			at += n + int(length)
		}
		op.end = uint32(at)
		var prefix [8]byte
		copy(prefix[:], data[op.key:op.keyTo])
		op.prefix = binary.BigEndian.Uint64(prefix[:])
		s.ops = append(s.ops, op)
	}
	slices.SortFunc(s.ops, func(a, b sortOp) int {
		if a.prefix != b.prefix {
			if a.prefix < b.prefix {
				return -1
			}
			return 1
		}
		if c := bytes.Compare(data[a.key:a.keyTo], data[b.key:b.keyTo]); c != 0 {
			return c
		}
		return int(int64(a.at) - int64(b.at))
	})
	s.out = slices.Grow(s.out[:0], len(data))
	count := 0
	for i, op := range s.ops {
		if i+1 < len(s.ops) {
			if next := s.ops[i+1]; next.prefix == op.prefix && bytes.Equal(data[op.key:op.keyTo], data[next.key:next.keyTo]) {
				continue
			}
		}
		s.out = append(s.out, data[op.at:op.end]...)
		count++
	}
	return s.out, count
}

package chaindata

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
)

// record is the journal record of a batch at a sequence.
func record(first uint64, b *leveldb.Batch) []byte {
	out := make([]byte, batchHeaderSize)
	binary.LittleEndian.PutUint64(out, first)
	binary.LittleEndian.PutUint32(out[8:], uint32(b.Len()))
	return append(out, b.Dump()...)
}

// ops collects what goleveldb itself replays.
type ops []Op

func (o *ops) Put(k, v []byte) { *o = append(*o, Op{Key: bytes.Clone(k), Value: bytes.Clone(v)}) }
func (o *ops) Delete(k []byte) { *o = append(*o, Op{Delete: true, Key: bytes.Clone(k)}) }

func TestBatchHasTheOperationsThatLevelDBReplays(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for range 200 {
		src := randomBatch(rng, 40, 300)
		b, err := ParseBatch(record(77, src))
		if err != nil {
			t.Fatal(err)
		}
		if b.First != 77 || int(b.Count) != src.Len() || b.Last() != 77+uint64(src.Len())-1 {
			t.Fatalf("%d+%d for %d operations", b.First, b.Count, src.Len())
		}
		var want ops
		if err := src.Replay(&want); err != nil {
			t.Fatal(err)
		}
		i := 0
		for op := range b.Ops() {
			if op.Delete != want[i].Delete || !bytes.Equal(op.Key, want[i].Key) || !bytes.Equal(op.Value, want[i].Value) {
				t.Fatalf("operation %d: %v, want %v", i, op, want[i])
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("%d operations, want %d", i, len(want))
		}
	}
}

func TestParseBatchRefusesWhatDoesNotAddUp(t *testing.T) {
	src := new(leveldb.Batch)
	src.Put([]byte("key"), []byte("value"))
	src.Delete([]byte("other"))
	good := record(5, src)
	edit := func(fn func(b []byte) []byte) []byte { return fn(bytes.Clone(good)) }
	for name, c := range map[string]struct {
		record []byte
		want   string
	}{
		"empty":          {nil, "shorter than its header"},
		"short header":   {good[:11], "shorter than its header"},
		"cut":            {good[:len(good)-1], "past the batch"},
		"cut to one":     {good[:batchHeaderSize+11], "announced"},
		"trailing byte":  {append(bytes.Clone(good), 0), "past the batch"},
		"count too low":  {edit(func(b []byte) []byte { b[8] = 1; return b }), "more than"},
		"count too high": {edit(func(b []byte) []byte { b[8] = 3; return b }), "announced"},
		"unknown kind":   {edit(func(b []byte) []byte { b[batchHeaderSize] = 2; return b }), "unknown kind"},
		"overflow":       {edit(func(b []byte) []byte { copy(b, bytes.Repeat([]byte{255}, 8)); return b }), "overflows"},
		"huge length": {append(bytes.Clone(good[:batchHeaderSize+1]), 255, 255, 255, 255, 255, 255, 255, 255, 255, 1),
			"past the batch"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseBatch(c.record); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseBatchAllocatesNothing(t *testing.T) {
	data := record(1, randomBatch(rand.New(rand.NewSource(1)), 50, 100))
	if n := testing.AllocsPerRun(100, func() {
		b, err := ParseBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		for range b.Ops() {
		}
	}); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParseBatch(f *testing.F) {
	rng := rand.New(rand.NewSource(1))
	for range 5 {
		f.Add(record(rng.Uint64()>>1, randomBatch(rng, 10, 50)))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBatch(data)
		n := uint32(0)
		for range (Batch{Data: append(make([]byte, batchHeaderSize), data...)}).Ops() {
			// must not panic on anything
		}
		if err != nil {
			return
		}
		for range b.Ops() {
			n++
		}
		if n != b.Count {
			t.Fatalf("%d operations, announced are %d", n, b.Count)
		}
		// Nothing that goleveldb takes is refused, nor the other way round.
		if err := new(leveldb.Batch).Load(data[batchHeaderSize:]); err != nil {
			t.Fatalf("goleveldb refuses it: %v", err)
		}
	})
}

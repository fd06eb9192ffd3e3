package chaindata

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
)

// A numbered writer: the batch at sequence s, and so the whole database at s, follow from s alone.

const (
	numberedOps  = 8
	numberedKeys = 997
)

func numberedKey(seq uint64) []byte { return fmt.Appendf(nil, "k%03d", seq*7919%numberedKeys) }

func numberedValue(seq uint64) []byte {
	v := make([]byte, 100+seq%400)
	binary.BigEndian.PutUint64(v, seq)
	rand.New(rand.NewSource(int64(seq))).Read(v[8:])
	return v
}

func numberedDelete(seq uint64) bool { return seq%11 == 0 }

func numberedBatch(first uint64) *leveldb.Batch {
	b := new(leveldb.Batch)
	for seq := first; seq < first+numberedOps; seq++ {
		if numberedDelete(seq) {
			b.Delete(numberedKey(seq))
		} else {
			b.Put(numberedKey(seq), numberedValue(seq))
		}
	}
	return b
}

// wantAt is the database's content after sequence s.
func wantAt(s uint64) map[string]uint64 {
	m := make(map[string]uint64)
	for seq := s - min(s, 2*numberedKeys) + 1; seq <= s; seq++ {
		if key := string(numberedKey(seq)); numberedDelete(seq) {
			delete(m, key)
		} else {
			m[key] = seq
		}
	}
	return m
}

// checkNumbered compares a database's whole content with what it must be at sequence s.
func checkNumbered(t *testing.T, dir string, s uint64) {
	t.Helper()
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		t.Fatalf("open %s: %v", dir, err)
	}
	defer db.Close()
	want := wantAt(s)
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for ; it.Next(); n++ {
		seq, ok := want[string(it.Key())]
		if !ok {
			t.Fatalf("at sequence %d: key %s should not be there", s, it.Key())
		}
		if !bytes.Equal(it.Value(), numberedValue(seq)) {
			t.Fatalf("at sequence %d: key %s has the value of %d, not of %d", s, it.Key(), binary.BigEndian.Uint64(it.Value()), seq)
		}
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	if n != len(want) {
		t.Fatalf("at sequence %d: %d keys, want %d", s, n, len(want))
	}
}

func TestCopyUnderFullWriteLoadIsTheSourceAtOneSequence(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "chaindata")
	db := openDB(t, dir, smallBuffer)
	ctx, stop := context.WithCancel(deadline(t, time.Minute))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := uint64(1); ctx.Err() == nil; seq += numberedOps {
			if err := db.Write(numberedBatch(seq), nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() { stop(); <-done; db.Close() }()
	var before uint64
	for i := range 25 {
		dst := filepath.Join(base, fmt.Sprint("copy", i))
		res, err := Copy(ctx, dir, dst, CopyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if res.Sequence < before || res.Sequence%numberedOps != 0 {
			t.Fatalf("copy %d ends at %d, the one before at %d", i, res.Sequence, before)
		}
		state, err := Inspect(dst)
		if err != nil || state.Sequence != res.Sequence {
			t.Fatalf("state %+v, %v; the copy says %d", state, err, res.Sequence)
		}
		checkNumbered(t, dst, res.Sequence)
		before = res.Sequence
		t.Logf("%+v", res)
	}
	if before == 0 {
		t.Fatal("nothing was written while the copies were made")
	}
}

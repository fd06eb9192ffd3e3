package chaindata

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
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
	copy(v[8:], numberedNoise[seq%500:])
	return v
}

var numberedNoise = randomBytes(1, 1000)

func numberedDelete(seq uint64) bool { return seq%11 == 0 }

func numberedBatch(first uint64) *leveldb.Batch { return numberedBatchOf(first, numberedOps) }

func numberedBatchOf(first, ops uint64) *leveldb.Batch {
	b := new(leveldb.Batch)
	for seq := first; seq < first+ops; seq++ {
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
	for _, large := range []uint64{0, 60} {
		t.Run(fmt.Sprintf("large batches past the journal=%v", large > 0), func(t *testing.T) {
			copyUnderLoad(t, large)
		})
	}
}

// copyUnderLoad makes 25 copies while a writer does what it can. Every so many batches, one goes past the journal.
func copyUnderLoad(t *testing.T, large uint64) {
	base := t.TempDir()
	dir := filepath.Join(base, "chaindata")
	db := openDB(t, dir, smallBuffer)
	ctx, stop := context.WithCancel(deadline(t, time.Minute))
	done := make(chan struct{})
	ends := make(map[uint64]bool) // where batches end; read when the writer has ended
	go func() {
		defer close(done)
		n := uint64(0)
		for seq := uint64(1); ctx.Err() == nil; n++ {
			ops := uint64(numberedOps)
			if large > 0 && n%large == large-1 {
				ops = 400
			}
			if err := db.Write(numberedBatchOf(seq, ops), nil); err != nil {
				t.Error(err)
				return
			}
			seq += ops
			ends[seq-1] = true
		}
	}()
	var sequences []uint64
	attempts := 0
	for i := range 25 {
		dst := filepath.Join(base, fmt.Sprint("copy", i))
		res, err := Copy(ctx, dir, dst, CopyOptions{})
		if err != nil {
			t.Error(err)
			break
		}
		attempts += res.Attempts
		sequences = append(sequences, res.Sequence)
		if i > 0 && res.Sequence < sequences[i-1] {
			t.Errorf("copy %d ends at %d, the one before at %d", i, res.Sequence, sequences[i-1])
		}
		if state, err := Inspect(dst); err != nil || state.Sequence != res.Sequence || state.Tables != res.Tables {
			t.Errorf("state %+v, %v; the copy says %+v", state, err, res)
		}
	}
	stop()
	<-done
	db.Close()
	for i, seq := range sequences {
		if seq > 0 && !ends[seq] {
			t.Errorf("copy %d ends at %d, inside a batch", i, seq)
		}
		checkNumbered(t, filepath.Join(base, fmt.Sprint("copy", i)), seq)
	}
	if n := len(sequences); n == 0 || sequences[n-1] == 0 {
		t.Fatal("nothing was written while the copies were made")
	}
	t.Logf("%d copies in %d attempts, from sequence %d to %d", len(sequences), attempts, sequences[0], sequences[len(sequences)-1])
}

func TestCopyGoesOnWhenTheSourceHasMovedOn(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, smallBuffer)
	defer db.Close()
	seq := uint64(1)
	moves := 0
	move := func() {
		if moves++; moves > 4 {
			return
		}
		for range 300 {
			if err := db.Write(numberedBatch(seq), nil); err != nil {
				t.Error(err)
			}
			seq += numberedOps
		}
		if err := db.CompactRange(util.Range{}); err != nil { // replaces every table
			t.Error(err)
		}
	}
	move()
	dst := chaindata(t)
	res, err := Copy(t.Context(), dir, dst, CopyOptions{afterManifest: move})
	if err != nil || res.Attempts != 4 || res.Sequence != seq-1 {
		t.Fatalf("%+v, %v, want sequence %d", res, err, seq-1)
	}
	tables, err := filepath.Glob(filepath.Join(dst, "*.ldb"))
	if err != nil || len(tables) != res.Tables {
		t.Fatalf("%d table files, %d are in force", len(tables), res.Tables)
	}
	checkNumbered(t, dst, res.Sequence)
}

func TestCopyLeavesNothingBehindWhenItFails(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "chaindata")
	openDB(t, dir, smallBuffer).Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Copy(ctx, dir, filepath.Join(base, "copy"), CopyOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), dir, dir, CopyOptions{}); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
}

func TestCopyToAnotherFileSystemCopiesTheTables(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "drover-test-")
	if err != nil {
		t.Skip("no second file system:", err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	dir := chaindata(t)
	db := openDB(t, dir, smallBuffer)
	var last uint64
	for seq := uint64(1); seq < 5000; seq += numberedOps {
		if err := db.Write(numberedBatch(seq), nil); err != nil {
			t.Fatal(err)
		}
		last = seq + numberedOps - 1
	}
	defer db.Close()
	res, err := Copy(t.Context(), dir, filepath.Join(other, "copy"), CopyOptions{})
	if err != nil || res.Linked != 0 || res.Tables == 0 || res.Sequence != last {
		t.Fatalf("%+v, %v", res, err)
	}
	checkNumbered(t, filepath.Join(other, "copy"), last)
}

func TestFreezerTableCopiedEmptyIsCopiedAgain(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	for _, dir := range []string{src, dst} {
		for name, content := range map[string]string{
			"headers.meta": "\xc3\x02\x80\x0c", "headers.cidx": "0000001111111", "headers.0000.cdat": "data",
			"bodies.meta": "\xc3\x02\x80\x0c", "bodies.cidx": "0000001111111", "bodies.0000.cdat": "data",
		} {
			if dir == dst && name == "headers.meta" {
				content = "\xc3\x02\x80\x06" // read just before geth flushed the first blocks
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if empty, err := emptyTable(dst, "headers.cidx"); err != nil || !empty {
		t.Fatalf("empty %v, %v", empty, err)
	}
	if err := (&freezerCopier{src: src, dst: dst}).fillEmptyTables(t.Context(), []string{"bodies.cidx", "headers.cidx"}); err != nil {
		t.Fatal(err)
	}
	if empty, err := emptyTable(dst, "headers.cidx"); err != nil || empty {
		t.Fatalf("empty %v, %v", empty, err)
	}
}

func TestCopyTakesAFreezerTableAgainWhenItWasCut(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(src, "chain"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, "chain", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"headers.meta": "m", "headers.cidx": "index-0123", "headers.0000.cdat": "data", "headers.0001.cdat": "more",
		"hashes.meta": "m", "hashes.ridx": "index", "hashes.0000.rdat": "data", "FLOCK": "",
	} {
		write(name, content)
	}
	if err := (&freezerCopier{src: src, dst: dst}).copy(t.Context()); err != nil {
		t.Fatal(err)
	}
	write("headers.cidx", "other") // what an attempt finds when the table was cut while it was copied
	if err := samePrefix(filepath.Join(src, "chain/headers.cidx"), filepath.Join(dst, "chain/headers.cidx")); !errors.Is(err, errMoved) {
		t.Fatalf("got %v", err)
	}
	os.Remove(filepath.Join(src, "chain/headers.0001.cdat"))
	if err := (&freezerCopier{src: src, dst: dst}).copy(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadDir(filepath.Join(dst, "chain"))
	if err != nil || len(got) != 6 {
		t.Fatalf("%v, %v", got, err)
	}
	if content, _ := os.ReadFile(filepath.Join(dst, "chain/headers.cidx")); string(content) != "other" {
		t.Fatalf("index %q", content)
	}
}

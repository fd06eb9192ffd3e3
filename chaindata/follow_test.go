package chaindata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// smallBuffer makes goleveldb rotate its journal every few dozen writes.
const smallBuffer = 64 << 10

func openDB(t testing.TB, dir string, buffer int) *leveldb.DB {
	t.Helper()
	db, err := leveldb.OpenFile(dir, &opt.Options{WriteBuffer: buffer, CompactionTableSize: 64 << 10, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func newFollower(t testing.TB, opts FollowOptions) *Follower {
	t.Helper()
	f, err := NewFollower(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// drain reads to io.EOF and returns the batches.
func drain(t testing.TB, f *Follower) ([]Batch, error) {
	t.Helper()
	ctx := deadline(t, 30*time.Second)
	var all []Batch
	for {
		b, err := f.Next(ctx)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, b)
	}
}

func randomBatch(rng *rand.Rand, maxOps, maxValue int) *leveldb.Batch {
	b := new(leveldb.Batch)
	for range 1 + rng.Intn(maxOps) {
		key := fmt.Appendf(nil, "key-%04d", rng.Intn(5000))
		if rng.Intn(8) == 0 {
			b.Delete(key)
			continue
		}
		value := make([]byte, rng.Intn(maxValue))
		rng.Read(value)
		b.Put(key, value)
	}
	return b
}

func TestRestartLeavesOneVoidSequence(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "chaindata")
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	for range 3 {
		db := openDB(t, dir, 4<<20)
		for i := range 5 {
			if err := db.Put([]byte{byte(i)}, []byte("v"), nil); err != nil {
				t.Fatal(err)
			}
		}
		db.Close()
		s, err := Inspect(dir)
		t.Logf("%+v reopened %d %v", s, s.Reopened(), err)
	}
	f.SourceStopped()
	all, err := drain(t, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		t.Log(b.First, b.Count, len(b.Data))
	}
}

func TestFollowerDeliversEverySequenceOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "chaindata")
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	rng := rand.New(rand.NewSource(1))
	db := openDB(t, dir, smallBuffer)
	go func() {
		defer f.SourceStopped()
		defer db.Close()
		for range 5000 {
			if err := db.Write(randomBatch(rng, 20, 500), nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	all, err := drain(t, f)
	if err != nil {
		t.Fatal(err)
	}
	want := uint64(1)
	for _, b := range all {
		if b.First != want {
			t.Fatalf("first %d, want %d", b.First, want)
		}
		want = b.Last() + 1
	}
	t.Logf("%d batches, last sequence %d, last journal %d", len(all), want-1, f.num)
}

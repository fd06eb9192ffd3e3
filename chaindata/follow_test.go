package chaindata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// smallBuffer makes goleveldb rotate its journal every few dozen writes.
const smallBuffer = 64 << 10

func openDB(t testing.TB, dir string, buffer int) *leveldb.DB {
	t.Helper()
	db, err := leveldb.OpenFile(dir, openOptions(buffer))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func openOptions(buffer int) *opt.Options {
	return &opt.Options{WriteBuffer: buffer, CompactionTableSize: 64 << 10, NoSync: true}
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

// linkAll links what is there now: for tests that let journals go right away, where the watcher may come too late.
func linkAll(t testing.TB, f *Follower) {
	t.Helper()
	if _, err := f.spool.scan(); err != nil {
		t.Fatal(err)
	}
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func chaindata(t testing.TB) string { return filepath.Join(t.TempDir(), "chaindata") }

func put(t testing.TB, db *leveldb.DB, n int) {
	t.Helper()
	for i := range n {
		if err := db.Put(fmt.Appendf(nil, "key-%03d", i), []byte("value"), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// stream checks that batches come in order and replays them into a map.
type stream struct {
	t       testing.TB
	next    uint64
	voids   int
	batches int
	content map[string]string
}

func newStream(t testing.TB, from uint64) *stream {
	return &stream{t: t, next: from, content: make(map[string]string)}
}

func (s *stream) add(b Batch) {
	s.t.Helper()
	if b.First != s.next {
		s.t.Fatalf("batch at %d, want %d", b.First, s.next)
	}
	if _, err := ParseBatch(b.Data); err != nil {
		s.t.Fatal(err)
	}
	s.next = b.Last() + 1
	s.batches++
	for op := range b.Ops() {
		if bytes.Equal(op.Key, VoidKey) {
			s.voids++
		}
		if op.Delete {
			delete(s.content, string(op.Key))
		} else {
			s.content[string(op.Key)] = string(op.Value)
		}
	}
}

// drain reads to io.EOF.
func (s *stream) drain(f *Follower) error {
	s.t.Helper()
	ctx := deadline(s.t, 30*time.Second)
	for {
		b, err := f.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.add(b)
	}
}

// equals compares what was replayed with the database.
func (s *stream) equals(dir string) {
	s.t.Helper()
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for ; it.Next(); n++ {
		if got, ok := s.content[string(it.Key())]; !ok || got != string(it.Value()) {
			s.t.Fatalf("key %q differs (in the stream: %v)", it.Key(), ok)
		}
	}
	if it.Error() != nil || n != len(s.content) {
		s.t.Fatalf("%d keys in the database, %d in the stream, %v", n, len(s.content), it.Error())
	}
}

func (s *stream) mustDrain(f *Follower) {
	s.t.Helper()
	if err := s.drain(f); err != nil {
		s.t.Fatal(err)
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

// The writer stays less than a write buffer ahead, so that no journal can come and go unseen, whatever the scheduler
// does: this test is about the follower's order, not about the race for the link.
func TestFollowerDeliversEverySequenceOnceAcrossRotations(t *testing.T) {
	for _, noNotify := range []bool{false, true} {
		t.Run(fmt.Sprintf("polling=%v", noNotify), func(t *testing.T) {
			dir := chaindata(t)
			opts := FollowOptions{Dir: dir, From: 1, noNotify: noNotify}
			if noNotify {
				opts.Poll = time.Millisecond
			}
			f := newFollower(t, opts)
			s := newStream(t, 1)
			var written, read atomic.Int64
			writer := make(chan struct{})
			go func() {
				defer close(writer)
				defer f.SourceStopped()
				rng := rand.New(rand.NewSource(1))
				db := openDB(t, dir, smallBuffer)
				defer db.Close()
				for written.Load() < 4<<20 {
					b := randomBatch(rng, 20, 900)
					for written.Load()-read.Load()+int64(len(b.Dump())) > smallBuffer*3/4 && written.Load() > read.Load() {
						if t.Failed() {
							return
						}
						time.Sleep(20 * time.Microsecond)
					}
					if err := db.Write(b, nil); err != nil {
						t.Error(err)
						return
					}
					written.Add(int64(len(b.Dump())))
				}
			}()
			defer func() { <-writer }()
			ctx := deadline(t, 3*time.Minute)
			for {
				b, err := f.Next(ctx)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				s.add(b)
				read.Add(int64(len(b.Data) - batchHeaderSize))
				f.Published(b.Last())
			}
			<-writer
			s.equals(dir)
			if s.voids != 0 || f.num < 30 {
				t.Fatalf("%d voids, last journal %d: the journal was not rotated enough", s.voids, f.num)
			}
			links, err := list(f.opts.SpoolDir)
			if err != nil || len(links.journals) > 2 {
				t.Fatalf("links left after all was published: %v, %v", links.journals, err)
			}
		})
	}
}

func TestRestartOfTheSourceIsFilledWithAVoidBatch(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	for i := range 4 {
		db := openDB(t, dir, 4<<20)
		if i != 2 {
			put(t, db, 5)
		}
		linkAll(t, f)
		db.Close()
		state, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := []uint64{5, 11, 12, 17}[i]; state.Sequence != want {
			t.Fatalf("round %d: %+v, want sequence %d", i, state, want)
		}
	}
	f.SourceStopped()
	s := newStream(t, 1)
	s.mustDrain(f)
	if s.next != 18 || s.voids != 2 {
		t.Fatalf("next %d, %d voids", s.next, s.voids)
	}
	s.equals(dir)
}

func TestFollowerStartedAtRestKnowsTheVoidSequence(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, 4<<20)
	put(t, db, 5)
	db.Close()
	state, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower(t, FollowOptions{Dir: dir, From: state.Sequence + 1})
	db = openDB(t, dir, 4<<20)
	put(t, db, 3)
	db.Close()
	f.SourceStopped()
	s := newStream(t, 6)
	s.mustDrain(f)
	if s.next != 10 || s.voids != 1 {
		t.Fatalf("next %d, %d voids", s.next, s.voids)
	}
}

func TestOneLargeOperationPastTheJournalIsAHole(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			dir := chaindata(t)
			f := newFollower(t, FollowOptions{Dir: dir, From: 1})
			db := openDB(t, dir, smallBuffer)
			put(t, db, 5)
			linkAll(t, f)
			large := new(leveldb.Batch)
			large.Put([]byte("large"), make([]byte, 2*smallBuffer))
			if err := db.Write(large, nil); err != nil {
				t.Fatal(err)
			}
			linkAll(t, f)
			if restart { // now the sequences alone look like goleveldb's void one
				db.Close()
				db = openDB(t, dir, smallBuffer)
			}
			put(t, db, 1)
			db.Close()
			f.SourceStopped()
			s := newStream(t, 1)
			err := s.drain(f)
			var hole *HoleError
			if !errors.Is(err, ErrHole) || !errors.As(err, &hole) {
				t.Fatalf("got %v", err)
			}
			if s.next != 6 || hole.Want != 6 || hole.Got != 7 {
				t.Fatalf("delivered up to %d, %+v", s.next-1, hole)
			}
			if _, again := f.Next(deadline(t, time.Second)); !errors.Is(again, ErrHole) {
				t.Fatalf("after the hole: %v", again)
			}
		})
	}
}

func TestLargeBatchPastTheJournalIsAHoleWithItsNumbers(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	db := openDB(t, dir, smallBuffer)
	put(t, db, 10)
	linkAll(t, f)
	large := new(leveldb.Batch)
	for i := range 300 {
		large.Put(fmt.Appendf(nil, "large-%d", i), make([]byte, 1000))
	}
	if err := db.Write(large, nil); err != nil {
		t.Fatal(err)
	}
	put(t, db, 1)
	db.Close()
	f.SourceStopped()
	err := newStream(t, 1).drain(f)
	var hole *HoleError
	if !errors.As(err, &hole) || hole.Want != 11 || hole.Got != 311 {
		t.Fatalf("got %v", err)
	}
}

func TestJournalDeletedUnseenIsAHole(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, smallBuffer)
	put(t, db, 5000)
	db.Close()
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	f.SourceStopped()
	err := newStream(t, 1).drain(f)
	var hole *HoleError
	if !errors.As(err, &hole) || hole.Want != 1 || hole.Got < 100 {
		t.Fatalf("got %v", err)
	}
}

func TestFollowerStartsInTheMiddleAndRefusesToCutABatch(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, 4<<20)
	for seq := uint64(1); seq < 80; seq += numberedOps {
		if err := db.Write(numberedBatch(seq), nil); err != nil {
			t.Fatal(err)
		}
	}
	defer db.Close()
	f := newFollower(t, FollowOptions{Dir: dir, From: 5*numberedOps + 1})
	if b, err := f.Next(deadline(t, 10*time.Second)); err != nil || b.First != 5*numberedOps+1 {
		t.Fatalf("%d, %v", b.First, err)
	}
	f = newFollower(t, FollowOptions{Dir: dir, From: 5*numberedOps + 3})
	if _, err := f.Next(deadline(t, 10*time.Second)); !errors.Is(err, ErrCorruptJournal) {
		t.Fatalf("got %v", err)
	}
}

func TestFollowerGoesOnFromItsSpoolAfterItsOwnRestart(t *testing.T) {
	dir := chaindata(t)
	s := newStream(t, 1)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	rng := rand.New(rand.NewSource(1))
	ctx := deadline(t, time.Minute)
	for round := range 6 {
		db := openDB(t, dir, 4<<20)
		for range 60 {
			if err := db.Write(randomBatch(rng, 20, 900), nil); err != nil {
				t.Fatal(err)
			}
		}
		linkAll(t, f)
		db.Close() // the next open deletes what journals there are: only the spool has them
		for range 30 + 10*round {
			b, err := f.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s.add(b)
			f.Published(b.Last())
		}
		f.Close()
		f = newFollower(t, FollowOptions{Dir: dir, From: s.next})
	}
	f.SourceStopped()
	s.mustDrain(f)
	s.equals(dir)
	if s.voids != 5 {
		t.Fatalf("%d voids for 5 restarts", s.voids)
	}
}

func TestCrashBetweenVoidAndFirstBatchOfARestartIsResumed(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	for range 2 {
		db := openDB(t, dir, 4<<20)
		put(t, db, 5)
		linkAll(t, f)
		db.Close()
	}
	s := newStream(t, 1)
	for s.next < 7 { // 5 puts and the void
		b, err := f.Next(deadline(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		s.add(b)
		if b.Last() < 6 {
			f.Published(b.Last()) // the void batch is delivered, and never published
		}
	}
	f.Close()
	f = newFollower(t, FollowOptions{Dir: dir, From: 6})
	f.SourceStopped()
	s = newStream(t, 6)
	s.mustDrain(f)
	if s.next != 12 || s.voids != 1 {
		t.Fatalf("next %d, %d voids", s.next, s.voids)
	}
}

func TestCloseWakesNextAndMayBeCalledTwice(t *testing.T) {
	f := newFollower(t, FollowOptions{Dir: chaindata(t), From: 1})
	got := make(chan error, 1)
	go func() {
		_, err := f.Next(context.Background())
		got <- err
	}()
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-got:
		if !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Next still waits")
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	f := newFollower(t, FollowOptions{Dir: chaindata(t), From: 1})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestIdleFollowerTakesNoTime(t *testing.T) {
	if testing.Short() {
		t.Skip("measures for 2 s")
	}
	dir := chaindata(t)
	db := openDB(t, dir, 4<<20)
	defer db.Close()
	put(t, db, 10)
	f := newFollower(t, FollowOptions{Dir: dir, From: 11})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	before := cpuTime(t)
	if _, err := f.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	t.Logf("the process used %v of CPU time in 2 s (goleveldb idle in it too)", cpuTime(t)-before)
}

func reopen(t testing.TB, dir string) *leveldb.DB {
	t.Helper()
	db := openDB(t, dir, 4<<20)
	t.Cleanup(func() { db.Close() })
	return db
}

// Without notification a journal is found by listing the directory when its time stamp has changed. Neither a listing that
// was under way at the time, nor a change in the same tick of the clock as the one before, may hide it.
func TestJournalsThatAppearBesideAListingAreFound(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1, noNotify: true, Poll: time.Hour}) // the test ticks
	create := func(num uint64) {
		if err := os.WriteFile(filepath.Join(dir, journalName(num)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	linked := func(num uint64) {
		t.Helper()
		ctx := deadline(t, 5*time.Second)
		for ctx.Err() == nil {
			f.onTick()
			if links, err := list(f.opts.SpoolDir); err == nil && slices.Contains(links.journals, num) {
				f.scans.Wait()
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("journal %d was never seen", num)
	}
	f.scanning.Store(true)
	create(101)
	f.onTick()
	f.scanning.Store(false)
	linked(101)

	create(102)
	linked(102)
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	create(103)
	if err := os.Chtimes(dir, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	linked(103)
}

package chaindata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestSpoolLimitStopsUntilPublishedOrTheSourceStopped(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1, SpoolLimit: 20_000, Poll: 5 * time.Millisecond})
	db := openDB(t, dir, 4<<20)
	put(t, db, 1)
	s := newStream(t, 1)
	ctx := deadline(t, time.Minute)
	b, err := f.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.add(b)
	put(t, db, 1000)
	select {
	case <-f.SpoolFull():
	case <-ctx.Done():
		t.Fatal("never told that the spool is full")
	}
	for err == nil {
		if b, err = f.Next(ctx); err == nil {
			s.add(b)
		}
	}
	if !errors.Is(err, ErrSpoolFull) || f.SpoolBytes() <= 20_000 {
		t.Fatalf("got %v with %d bytes", err, f.SpoolBytes())
	}
	f.SourceStopped()
	for range 900 {
		if b, err = f.Next(ctx); err != nil {
			t.Fatal(err)
		}
		s.add(b)
		f.Published(b.Last())
	}
	if f.SpoolBytes() > 20_000 {
		t.Fatalf("%d bytes unpublished after 900 of 1000", f.SpoolBytes())
	}
	s.mustDrain(f)
	db.Close()
	if s.next != 1002 {
		t.Fatalf("next %d", s.next)
	}
}

func TestSpoolBytesCountsWhatIsUnpublished(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	db := openDB(t, dir, 256<<10)
	defer db.Close()
	var total int64
	for seq := uint64(1); seq < 2000; seq += numberedOps {
		b := numberedBatch(seq)
		total += int64(len(b.Dump()))
		if err := db.Write(b, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Next(deadline(t, 10*time.Second)); err != nil || got.First != seq {
			t.Fatalf("%d, %v", got.First, err)
		}
	}
	if got := f.SpoolBytes(); got < total || got > total+total/20 {
		t.Fatalf("%d bytes, about %d were written", got, total)
	}
	f.Published(1000)
	if got := f.SpoolBytes(); got > total*6/10+2*markStep {
		t.Fatalf("%d of %d bytes after half was published", got, total)
	}
	f.Published(f.next - 1)
	if got := f.SpoolBytes(); got != 0 {
		t.Fatalf("%d bytes after all was published", got)
	}
}

func TestDatabaseBehindThePublishedSequenceIsRefused(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, 4<<20)
	put(t, db, 10)
	defer db.Close()
	f := newFollower(t, FollowOptions{Dir: dir, From: 13})
	if _, err := f.Next(deadline(t, 10*time.Second)); !errors.Is(err, ErrBehind) {
		t.Fatalf("got %v", err)
	}
	f = newFollower(t, FollowOptions{Dir: dir, From: 12}) // 10 and the void sequence
	if _, ok, err := f.TryNext(); ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
}

func TestReplacedDatabaseIsRefused(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1, Poll: 5 * time.Millisecond})
	db := openDB(t, dir, 4<<20)
	put(t, db, 3)
	s := newStream(t, 1)
	ctx := deadline(t, 10*time.Second)
	for s.next < 4 {
		b, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.add(b)
	}
	db.Close()
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	openDB(t, dir, 4<<20).Close()
	if _, err := f.Next(ctx); !errors.Is(err, ErrReplaced) {
		t.Fatalf("got %v", err)
	}
	// With the old one's links still there, the new one is not followed either.
	if _, err := NewFollower(FollowOptions{Dir: dir, From: 4}); !errors.Is(err, ErrReplaced) {
		t.Fatalf("got %v", err)
	}
}

func TestSpoolOnAnotherFileSystemIsRefused(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "drover-test-")
	if err != nil {
		t.Skip("no second file system:", err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	dir := chaindata(t)
	openDB(t, dir, 4<<20).Close()
	_, err = NewFollower(FollowOptions{Dir: dir, From: 1, SpoolDir: other})
	if !errors.Is(err, syscall.EXDEV) {
		t.Fatalf("got %v", err)
	}
}

func TestDatabaseEmptiedInPlaceIsRefused(t *testing.T) {
	for _, noNotify := range []bool{false, true} {
		t.Run(fmt.Sprintf("polling=%v", noNotify), func(t *testing.T) {
			dir := chaindata(t)
			f := newFollower(t, FollowOptions{Dir: dir, From: 1, Poll: 5 * time.Millisecond, noNotify: noNotify})
			s := newStream(t, 1)
			ctx := deadline(t, 10*time.Second)
			var err error
			for round := range 3 {
				db := openDB(t, dir, 4<<20)
				put(t, db, 3)
				db.Close()
				for range 3 + min(round, 1) {
					b, err := f.Next(ctx)
					if err != nil {
						t.Fatal(err)
					}
					s.add(b)
					f.Published(b.Last())
				}
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				os.Remove(filepath.Join(dir, e.Name()))
			}
			db := openDB(t, dir, 4<<20)
			put(t, db, 3)
			defer db.Close()
			if _, err = f.Next(ctx); !errors.Is(err, ErrReplaced) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestSpoolOfANewerDatabaseIsRefused(t *testing.T) {
	dir := chaindata(t)
	old := chaindata(t)
	db := openDB(t, dir, 4<<20)
	put(t, db, 3)
	if _, err := Copy(t.Context(), dir, old, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	openDB(t, dir, 4<<20).Close()
	spoolDir := filepath.Join(dir, "..", "drover-journals")
	newFollower(t, FollowOptions{Dir: dir, From: 1}).Close()
	_, err := NewFollower(FollowOptions{Dir: old, From: 1, SpoolDir: spoolDir})
	if !errors.Is(err, ErrReplaced) {
		t.Fatalf("got %v", err)
	}
}

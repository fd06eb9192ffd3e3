package chaindata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// filledJournal makes a database at rest with one journal, and returns that and the offset and bytes of each record.
func filledJournal(t *testing.T, dir string, batches int) (path string, ends []int64) {
	t.Helper()
	db := openDB(t, dir, 4<<20)
	for i := range uint64(batches) {
		if err := db.Write(numberedBatch(1+i*numberedOps), nil); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	state, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, journalName(state.Journals[0]))
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := scanRecords(file, path, func(_ Batch, end int64) error {
		ends = append(ends, end)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return path, ends
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := file.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestFlippedBitStopsAtItsRecord(t *testing.T) {
	for _, stopped := range []bool{true, false} {
		for _, last := range []bool{false, true} {
			t.Run(fmt.Sprintf("source stopped=%v, in the last record=%v", stopped, last), func(t *testing.T) {
				dir := chaindata(t)
				path, ends := filledJournal(t, dir, 40)
				n := 25
				if last {
					n = 39
				}
				flip(t, path, ends[n-1]+200)
				f := newFollower(t, FollowOptions{Dir: dir, From: 1, Poll: 10 * time.Millisecond})
				if stopped {
					f.SourceStopped()
				}
				s := newStream(t, 1)
				ctx := deadline(t, 30*time.Second)
				var err error
				for err == nil {
					var b Batch
					if b, err = f.Next(ctx); err == nil {
						s.add(b)
					}
				}
				var bad *CorruptError
				if !errors.Is(err, ErrCorruptJournal) || !errors.As(err, &bad) {
					t.Fatalf("got %v", err)
				}
				if s.batches != n || bad.Offset < ends[n-1] || bad.Offset > ends[n] || filepath.Base(bad.Path) != filepath.Base(path) {
					t.Fatalf("%d batches, then %v; record %d is at %d to %d", s.batches, err, n, ends[n-1], ends[n])
				}
			})
		}
	}
}

// rawJournal writes a journal of numbered batches as goleveldb would.
func rawJournal(t *testing.T, dir string, num, first uint64, batches int) (path string, ends []int) {
	t.Helper()
	var records [][]byte
	for i := range uint64(batches) {
		records = append(records, record(first+i*numberedOps, numberedBatch(first+i*numberedOps)))
	}
	data, ends := writeJournal(t, records)
	path = filepath.Join(dir, journalName(num))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, ends
}

func TestTornRecordThatTheSourceHadAppliedIsCorruption(t *testing.T) {
	dir := chaindata(t)
	path, ends := rawJournal(t, dir, 1, 1, 5)
	rawJournal(t, dir, 2, 1+5*numberedOps, 5) // goes on behind the fifth batch, so that was whole once
	flip(t, path, int64(ends[3]+5))           // its length: it seems to run past the file's end
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	f.SourceStopped()
	s := newStream(t, 1)
	err := s.drain(f)
	var bad *CorruptError
	if !errors.As(err, &bad) || s.batches != 4 || bad.Offset != int64(ends[3]) || filepath.Base(bad.Path) != journalName(1) {
		t.Fatalf("%d batches, %v", s.batches, err)
	}
}

func TestTornRecordThatTheSourceNeverAppliedIsPassedOver(t *testing.T) {
	dir := chaindata(t)
	path, ends := rawJournal(t, dir, 1, 1, 5)
	rawJournal(t, dir, 2, 1+4*numberedOps, 5) // the write failed, and its sequence was used again after the rotation
	if err := os.Truncate(path, int64(ends[4]-9)); err != nil {
		t.Fatal(err)
	}
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	f.SourceStopped()
	s := newStream(t, 1)
	s.mustDrain(f)
	if s.batches != 9 {
		t.Fatalf("%d batches", s.batches)
	}
}

func TestSequenceThatGoesBackIsRefused(t *testing.T) {
	dir := chaindata(t)
	rawJournal(t, dir, 1, 1, 5)
	rawJournal(t, dir, 2, 1+3*numberedOps, 5)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	f.SourceStopped()
	s := newStream(t, 1)
	if err := s.drain(f); !errors.Is(err, ErrCorruptJournal) || s.batches != 5 {
		t.Fatalf("%d batches, %v", s.batches, err)
	}
}

func TestOlderJournalThatTurnsUpLateFillsTheGap(t *testing.T) {
	dir := chaindata(t)
	rawJournal(t, dir, 1, 1, 5)
	rawJournal(t, dir, 3, 1+10*numberedOps, 5)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1, noNotify: true, Poll: time.Hour})
	s := newStream(t, 1)
	for range 5 {
		b, ok, err := f.TryNext()
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		s.add(b)
	}
	rawJournal(t, dir, 2, 1+5*numberedOps, 5)
	b, ok, err := f.TryNext() // meets the third journal's first batch, and looks for another that fills the gap
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	s.add(b)
	f.SourceStopped()
	s.mustDrain(f)
	if s.batches != 15 {
		t.Fatalf("%d batches", s.batches)
	}
}

func TestTornTailIsDroppedAndTheStreamGoesOn(t *testing.T) {
	for _, zeros := range []bool{false, true} {
		t.Run(fmt.Sprintf("zeros=%v", zeros), func(t *testing.T) {
			dir := chaindata(t)
			f := newFollower(t, FollowOptions{Dir: dir, From: 1})
			path, ends := filledJournal(t, dir, 10)
			linkAll(t, f)
			if err := os.Truncate(path, ends[8]+100); err != nil {
				t.Fatal(err)
			}
			if zeros {
				if err := os.Truncate(path, ends[9]+4096); err != nil {
					t.Fatal(err)
				}
			}
			state, err := Inspect(dir)
			if err != nil || state.Sequence != 9*numberedOps || state.TornBytes == 0 {
				t.Fatalf("%+v, %v", state, err)
			}
			put(t, reopen(t, dir), 3)
			f.SourceStopped()
			s := newStream(t, 1)
			s.mustDrain(f)
			if s.voids != 1 || s.next != 9*numberedOps+1+3+1 {
				t.Fatalf("next %d, %d voids", s.next, s.voids)
			}
		})
	}
}

func TestLiveFollowerWaitsForTheRestOfARecord(t *testing.T) {
	dir := chaindata(t)
	path, ends := filledJournal(t, dir, 10)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, ends[4]+20); err != nil {
		t.Fatal(err)
	}
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	s := newStream(t, 1)
	for {
		b, ok, err := f.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		s.add(b)
	}
	if s.batches != 5 {
		t.Fatalf("%d batches of 5", s.batches)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for at := ends[4] + 20; at < int64(len(whole)); at += 333 {
		if _, err := file.WriteAt(whole[at:min(at+333, int64(len(whole)))], at); err != nil {
			t.Fatal(err)
		}
		if b, ok, err := f.TryNext(); err != nil {
			t.Fatal(err)
		} else if ok {
			s.add(b)
		}
	}
	f.SourceStopped()
	s.mustDrain(f)
	if s.batches != 10 {
		t.Fatalf("%d batches of 10", s.batches)
	}
}

func TestEmptyNewerJournalDoesNotEndTheOlder(t *testing.T) {
	dir := chaindata(t)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	db := openDB(t, dir, 4<<20)
	put(t, db, 3)
	// goleveldb leaves such a file when it has to wait for the memtable before (newMem, errHasFrozenMem).
	if err := os.WriteFile(filepath.Join(dir, journalName(90)), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t, 10*time.Second)
	s := newStream(t, 1)
	for s.next < 4 {
		b, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.add(b)
	}
	if _, err := f.spool.scan(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := f.TryNext(); ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	put(t, db, 2)
	db.Close()
	f.SourceStopped()
	s.mustDrain(f)
	if s.next != 6 {
		t.Fatalf("next %d", s.next)
	}
}

package chaindata

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// reader is the part of a Follower that reads journals; Follower.mu guards it.
type reader struct {
	next uint64 // the sequence to deliver next
	err  error  // final

	file    *os.File
	num     uint64 // of the journal being read, or of the last one read
	before  uint64 // of the journal read before it
	path    string
	chunks  *chunkReader
	closing bool // a newer journal has content: this one has ended, and is being read a last time

	lastSeq     uint64 // of the last batch seen, delivered or skipped
	lastJournal uint64 // the journal it was in; 0: none was seen
	lastEnd     int64  // where it ended there
	held        *Batch // read and waiting behind a void batch
	heldEnd     int64

	caughtUp bool      // the end of what is there was reached once
	listed   bool      // the directory was listed since the source stopped
	suspect  int64     // offset of bytes that do not read as a chunk
	since    time.Time // when they were first seen
	tries    int
	torn     *CorruptError // where the journal before this one ended in the middle of a record
}

// Bytes that do not read as a chunk while the file is being written are looked at again before they count as corrupt: not
// every file system shows a write to other processes at once.
const (
	suspectTries = 3
	suspectAge   = 100 * time.Millisecond
)

// step returns the next batch to deliver; ok is false when there is none yet.
func (f *Follower) step() (b Batch, ok bool, err error) {
	for {
		if f.held != nil {
			b, end := *f.held, f.heldEnd
			f.held = nil
			return f.deliver(b, end), true, nil
		}
		if f.file == nil {
			opened, err := f.open()
			if err != nil || !opened {
				return Batch{}, false, err
			}
		}
		start := f.chunks.offset()
		record, err := f.chunks.next()
		if err != nil {
			again, err := f.atEnd(err)
			if err != nil || !again {
				return Batch{}, false, err
			}
			continue
		}
		f.tries = 0
		parsed, err := ParseBatch(record)
		if err != nil {
			return Batch{}, false, f.corrupt(start, err.Error())
		}
		b, ok, err := f.place(parsed, start)
		if ok || err != nil {
			return b, ok, err
		}
	}
}

// open opens the next journal, if there is one.
func (f *Follower) open() (bool, error) {
	num, ok := f.spool.after(f.num)
	if !ok {
		return false, f.exhausted()
	}
	file, err := os.Open(f.spool.path(num))
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("journal spool: %w: somebody removed the link", err)
	}
	if err != nil {
		return false, err
	}
	f.file, f.before, f.num, f.path, f.closing = file, f.num, num, file.Name(), false
	if f.chunks == nil {
		f.chunks = newChunkReader(file)
	} else {
		f.chunks.reset(file)
	}
	return true, nil
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// atEnd decides what it means that no whole record follows. again: something has changed, read on.
func (f *Follower) atEnd(cause error) (again bool, err error) {
	var bad *chunkError
	if !errors.Is(cause, errMore) && !errors.As(cause, &bad) {
		return false, cause
	}
	stopped := f.stopped.Load()
	if stopped && !f.listed {
		f.listed = true
		if _, err := f.spool.scan(); err != nil {
			return false, err
		}
		f.reloadIf(bad)
		return true, nil
	}
	_, newer := f.spool.after(f.num)
	ended := f.spool.writtenAfter(f.num) || stopped
	if ended && !f.closing {
		f.closing = true
		f.reloadIf(bad)
		return true, nil
	}
	if ended {
		return f.leave(bad, newer)
	}
	if bad != nil {
		return false, f.doubt(bad)
	}
	return false, f.exhausted()
}

func (f *Follower) reloadIf(bad *chunkError) {
	if bad != nil {
		f.chunks.reload()
	}
}

// leave ends the reading of a journal that will not grow any more.
func (f *Follower) leave(bad *chunkError, newer bool) (again bool, err error) {
	if bad != nil {
		torn, err := tornTail(f.file, bad.offset)
		if err != nil {
			return false, err
		}
		if !torn {
			return false, f.corrupt(bad.offset, bad.reason)
		}
	}
	if bad != nil || f.chunks.torn() {
		f.torn = &CorruptError{Path: f.path, Offset: f.chunks.offset()}
		f.log.Warn("a journal ends in the middle of a record; LevelDB drops it too", "file", f.path, "offset", f.chunks.offset())
	}
	if !newer {
		return false, f.exhausted()
	}
	f.reader.close()
	return true, nil
}

// doubt gives bytes that do not read as a chunk some time before they count as corrupt.
func (f *Follower) doubt(bad *chunkError) error {
	if f.tries == 0 || f.suspect != bad.offset {
		f.suspect, f.since, f.tries = bad.offset, time.Now(), 0
	}
	f.tries++
	f.chunks.reload()
	if f.tries >= suspectTries && time.Since(f.since) >= suspectAge {
		if torn, err := tornTail(f.file, bad.offset); err != nil || torn {
			return err
		}
		return f.corrupt(bad.offset, bad.reason)
	}
	time.AfterFunc(suspectAge/2, f.signal)
	return nil
}

// exhausted is the end of what is there: io.EOF when no more will come.
func (f *Follower) exhausted() error {
	if !f.caughtUp {
		if err := f.behind(); err != nil {
			return err
		}
		f.caughtUp = true
	}
	if !f.stopped.Load() {
		return nil
	}
	if !f.listed {
		f.listed = true
		added, err := f.spool.scan()
		if err != nil {
			return err
		}
		if added {
			f.signal()
			return nil
		}
	}
	return io.EOF
}

// behind checks that the database has what was published already. Without the check, batches that it writes again under
// the same sequences would be taken for published ones.
func (f *Follower) behind() error {
	if f.lastSeq+1 >= f.next {
		return nil
	}
	state, err := Inspect(f.opts.Dir)
	if errors.Is(err, ErrNoDatabase) {
		state, err = State{}, nil
	}
	if err != nil {
		return err
	}
	if state.Reopened()+1 < f.next {
		return fmt.Errorf("%w: %s ends at sequence %d, wanted is %d: start a new timeline with --rebase, then new snapshots",
			ErrBehind, f.opts.Dir, state.Sequence, f.next)
	}
	return nil
}

// place puts a batch in its place in the stream. ok: b is to be delivered.
func (f *Follower) place(b Batch, start int64) (_ Batch, ok bool, err error) {
	if b.Count == 0 {
		return Batch{}, false, nil
	}
	end := f.chunks.offset()
	if f.lastJournal != 0 && b.First <= f.lastSeq {
		return Batch{}, false, f.corrupt(start, fmt.Sprintf("sequence goes back from %d to %d", f.lastSeq, b.First))
	}
	if b.First > f.next {
		return f.gap(b, end)
	}
	if b.Last() < f.next {
		f.lastSeq, f.lastJournal, f.lastEnd = b.Last(), f.num, end
		f.spool.passed(f.num, end)
		return Batch{}, false, nil
	}
	if b.First < f.next {
		return Batch{}, false, f.corrupt(start, fmt.Sprintf(
			"batch %d to %d straddles %d, the first sequence wanted; batches are published whole", b.First, b.Last(), f.next))
	}
	return f.deliver(b, end), true, nil
}

func (f *Follower) deliver(b Batch, end int64) Batch {
	f.next = b.Last() + 1
	f.lastSeq, f.lastJournal, f.lastEnd, f.torn = b.Last(), f.num, end, nil
	f.spool.delivered(mark{seq: b.Last(), journal: f.num, end: end})
	return b
}

// gap handles a batch that starts above the sequence wanted: an older journal may turn up, the sequence may be the one
// that goleveldb leaves void at a restart, or it is a hole.
func (f *Follower) gap(b Batch, end int64) (Batch, bool, error) {
	if _, err := f.spool.scan(); err != nil {
		return Batch{}, false, err
	}
	if older, ok := f.spool.after(f.before); ok && older < f.num && f.lastJournal != f.num {
		f.reader.close()
		f.num = f.before
		return Batch{}, false, nil
	}
	if b.First == f.next+1 && f.lastJournal != 0 && f.lastJournal < f.num && f.lastSeq+1 >= f.next &&
		f.spool.explains(f.next, f.num, f.lastJournal) {
		f.log.Info("sequence left void by a restart of the source", "sequence", f.next, "journal", f.num)
		void := voidBatch(f.next)
		f.held, f.heldEnd = &b, end
		f.next++
		f.spool.delivered(mark{seq: void.First, journal: f.lastJournal, end: f.lastEnd})
		return void, true, nil
	}
	if f.torn != nil && b.First > f.next+1 {
		f.torn.Reason = fmt.Sprintf("the record here cannot be read, and %s goes on at sequence %d instead of %d",
			journalName(f.num), b.First, f.next)
		return Batch{}, false, f.torn
	}
	return Batch{}, false, &HoleError{Want: f.next, Got: b.First, Journal: f.path}
}

func (f *Follower) corrupt(offset int64, reason string) error {
	return &CorruptError{Path: f.path, Offset: offset, Reason: reason}
}

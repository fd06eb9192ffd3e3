package chaindata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// State describes a LevelDB directory at rest, or at one moment of a live one.
type State struct {
	Sequence         uint64   // the last sequence used: that of the last whole journal record, or the manifest's
	ManifestSequence uint64   // the last sequence that is in tables
	JournalNumber    uint64   // journals from this number on are replayed when the database is opened
	Journals         []uint64 // their numbers, ascending
	JournalRecords   int      // whole records in them
	JournalBytes     int64    // bytes of those records, with chunk headers
	TornBytes        int64    // bytes behind the last whole record of the last journal: a write cut short
	Manifest         uint64   // number of the manifest in force
	NextFile         uint64   // the next file number the manifest knows of
	Tables           int      // table files in force
}

// Reopened is the last sequence used once goleveldb has opened the database. Its journal recovery leaves one sequence
// unused: it sets the sequence to first+count of the last record (db.go, recoverJournal), where the writer had
// first+count-1. So the first batch after a restart has the number Reopened()+1, and Sequence+1 stays void if the
// journals held a record. Follower fills that place with a void batch (see VoidKey).
func (s State) Reopened() uint64 {
	if s.JournalRecords > 0 {
		return s.Sequence + 1
	}
	return s.Sequence
}

// noDatabase says of a directory that is not there that it holds no database.
func noDatabase(dir string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoDatabase, dir)
	}
	return err
}

// Inspect reads CURRENT, the manifest and the journals. The directory may be live: what it returns then was true at some
// moment during the call. Errors: ErrNoDatabase, ErrCorruptManifest, ErrCorruptJournal, ErrUnsupportedSource for Pebble.
func Inspect(dir string) (State, error) {
	const attempts = 100
	var last error
	for range attempts {
		s, err := inspectOnce(dir)
		if !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
		last = err // a file was deleted between the listing and the reading: the manifest has moved on
	}
	return State{}, fmt.Errorf("%s does not stand still: %w", dir, last)
}

func inspectOnce(dir string) (State, error) {
	l, err := list(dir)
	if err != nil {
		return State{}, noDatabase(dir, err)
	}
	if l.pebble() {
		return State{}, errPebble(dir)
	}
	manifest, err := currentManifest(dir)
	if err != nil {
		return State{}, err
	}
	sess, _, err := readManifest(filepath.Join(dir, manifestName(manifest)), nil)
	if err != nil {
		return State{}, err
	}
	if !sess.hasJournal || !sess.hasSequence || !sess.hasNextFile || sess.comparer != comparerName {
		return State{}, fmt.Errorf("%w: %s lacks a comparer, journal or sequence number", ErrCorruptManifest, manifestName(manifest))
	}
	s := State{
		Sequence: sess.sequence, ManifestSequence: sess.sequence, JournalNumber: sess.journal,
		Manifest: manifest, NextFile: sess.nextFile, Tables: len(sess.tables),
	}
	// Listed again, behind the manifest: a journal that it names was there before it did.
	if l, err = list(dir); err != nil {
		return State{}, err
	}
	for _, num := range l.journals {
		if num >= sess.journal || num == sess.prevJournal && num != 0 {
			s.Journals = append(s.Journals, num)
		}
	}
	for i, num := range s.Journals {
		if err := s.addJournal(filepath.Join(dir, journalName(num)), i == len(s.Journals)-1); err != nil {
			return State{}, err
		}
	}
	return s, nil
}

func (s *State) addJournal(path string, last bool) error {
	end, err := scanJournal(path, func(b Batch) error {
		s.JournalRecords++
		if b.Count > 0 && b.Last() > s.Sequence {
			s.Sequence = b.Last()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.JournalBytes += end.whole
	if last {
		s.TornBytes = end.torn
	}
	return nil
}

// journalEnd tells how a journal ends.
type journalEnd struct {
	whole int64 // bytes up to the end of the last whole record
	torn  int64 // bytes behind it
}

// scanJournal calls fn for each whole batch of a journal. A torn tail is not an error; ErrCorruptJournal is.
func scanJournal(path string, fn func(Batch) error) (journalEnd, error) {
	f, err := os.Open(path)
	if err != nil {
		return journalEnd{}, err
	}
	defer f.Close()
	return scanRecords(f, path, func(b Batch, _ int64) error { return fn(b) })
}

// scanRecords calls fn for each whole batch, with the offset of its end.
func scanRecords(f *os.File, path string, fn func(b Batch, end int64) error) (journalEnd, error) {
	r := newChunkReader(f)
	for {
		start := r.offset()
		record, err := r.next()
		var bad *chunkError
		switch {
		case err == nil:
		case errors.Is(err, errMore):
			return journalEnd{whole: r.offset(), torn: r.tornBytes()}, nil
		case errors.As(err, &bad):
			torn, terr := tornTail(f, bad.offset)
			if terr != nil {
				return journalEnd{}, terr
			}
			if !torn {
				return journalEnd{}, &CorruptError{Path: path, Offset: bad.offset, Reason: bad.reason}
			}
			fi, serr := f.Stat()
			if serr != nil {
				return journalEnd{}, serr
			}
			return journalEnd{whole: r.offset(), torn: fi.Size() - r.offset()}, nil
		default:
			return journalEnd{}, err
		}
		b, err := ParseBatch(record)
		if err != nil {
			return journalEnd{}, &CorruptError{Path: path, Offset: start, Reason: err.Error()}
		}
		if err := fn(b, r.offset()); err != nil {
			return journalEnd{}, err
		}
	}
}

// Lock takes the lock that goleveldb takes on a database it opens, so that no geth can start on the directory until
// release is called. ErrLocked when a process has it open, ErrNoDatabase when the directory is absent.
func Lock(dir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoDatabase, dir)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil // closing the descriptor releases the lock
}

func errPebble(dir string) error {
	return fmt.Errorf("%w: %s is a Pebble database: sync a new datadir with "+
		"--db.engine leveldb --state.scheme hash --gcmode archive", ErrUnsupportedSource, dir)
}

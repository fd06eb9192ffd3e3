package chaindata

import (
	"errors"
	"fmt"
)

var (
	// ErrNoDatabase means: the directory is absent or holds no LevelDB yet (a fresh datadir).
	ErrNoDatabase = errors.New("no LevelDB database in the directory")

	// ErrLocked means: another process, as a rule a live geth, has the database open.
	ErrLocked = errors.New("the database is in use by another process: stop it first, or use the attached mode")

	// ErrUnsupportedSource means: the database is not LevelDB, not of the hash scheme, or not an archive.
	ErrUnsupportedSource = errors.New("unsupported source database")

	// ErrHole means: sequences are missing from the journals. The concrete error is a *HoleError.
	ErrHole = errors.New("hole in the captured sequence")

	// ErrCorruptJournal means: bytes of a journal are not what LevelDB wrote. The concrete error is a *CorruptError.
	ErrCorruptJournal = errors.New("corrupt journal")

	// ErrCorruptManifest means: CURRENT or the manifest it names cannot be read as LevelDB's.
	ErrCorruptManifest = errors.New("corrupt manifest")

	// ErrSpoolFull means: the unpublished journals exceed FollowOptions.SpoolLimit. It is not final: after
	// SourceStopped, or when enough was published, reading goes on where it stopped.
	ErrSpoolFull = errors.New("spool of unpublished journals is full")

	// ErrBehind means: the database ends before the first sequence wanted, so it lost writes that were
	// already published (a power cut, an older copy put in its place).
	ErrBehind = errors.New("the database is behind what was already published")

	// ErrReplaced means: the database directory or a journal in it was exchanged for another while it was
	// followed, or the spool holds the journals of another database.
	ErrReplaced = errors.New("the database was replaced by another")

	// ErrClosed means: the Follower was closed.
	ErrClosed = errors.New("follower is closed")
)

// HoleError tells which sequences are missing. errors.Is(err, ErrHole) holds.
type HoleError struct {
	Want    uint64 // the sequence that should have come next
	Got     uint64 // the first sequence of the batch that came instead
	Journal string // the journal that batch is in
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("hole in the captured sequence: %d to %d are in no journal (%s goes on at %d); "+
		"a write went past the journal or a journal was deleted unseen: start a new timeline with --rebase, then new snapshots",
		e.Want, e.Got-1, e.Journal, e.Got)
}

// Is makes errors.Is(err, ErrHole) true.
func (e *HoleError) Is(target error) bool { return target == ErrHole }

// CorruptError names the place that cannot be read. errors.Is(err, ErrCorruptJournal) holds.
type CorruptError struct {
	Path   string // the file
	Offset int64  // of the first chunk or record that cannot be read, in bytes
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt journal %s at offset %d: %s", e.Path, e.Offset, e.Reason)
}

// Is makes errors.Is(err, ErrCorruptJournal) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorruptJournal }

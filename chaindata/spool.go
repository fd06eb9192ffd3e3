package chaindata

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// spool keeps a hard link of each journal (and each manifest) of a live database, made the moment it appears, so that it
// can be read after LevelDB has deleted its own name for it. It also knows how far the journals have been published.
type spool struct {
	dir, links string
	log        *slog.Logger

	mu        sync.Mutex
	journals  []uint64 // linked, ascending
	manifests []uint64 // linked, ascending
	removed   uint64   // journals up to this number are done with
	marks     []mark   // delivered, not yet published, ascending
	published mark     // where the published part ends
}

// mark says that all up to seq is in the journals before this one, and in this one's bytes up to end.
type mark struct {
	seq     uint64
	journal uint64
	end     int64
}

// markStep is the distance of marks in bytes: close enough for the accounting, far enough to need no memory.
const markStep = 256 << 10

func openSpool(dir, links string, log *slog.Logger) (*spool, error) {
	if err := os.MkdirAll(links, 0o700); err != nil {
		return nil, fmt.Errorf("journal spool: %w", err)
	}
	s := &spool{dir: dir, links: links, log: log}
	l, err := list(links)
	if err != nil {
		return nil, fmt.Errorf("journal spool: %w", err)
	}
	s.journals, s.manifests = l.journals, l.manifests
	return s, nil
}

func (s *spool) path(num uint64) string         { return filepath.Join(s.links, journalName(num)) }
func (s *spool) manifestPath(num uint64) string { return filepath.Join(s.links, manifestName(num)) }

// add links one file of the database by name, if it is a journal or a manifest. It tells whether a link is new. created
// says that the file has just come into being.
func (s *spool) add(name string, created bool) (bool, error) {
	num, journal := parseJournalName(name)
	if !journal {
		var manifest bool
		if num, manifest = parseManifestName(name); !manifest {
			return false, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := &s.manifests
	if journal {
		known = &s.journals
	}
	from, to := filepath.Join(s.dir, name), filepath.Join(s.links, name)
	at, found := slices.BinarySearch(*known, num)
	switch {
	case found:
		return false, sameFile(from, to)
	case journal && num <= s.removed && created:
		return false, fmt.Errorf("%w: %s was created, but journals up to %d were seen before", ErrReplaced, from, s.removed)
	case journal && num <= s.removed:
		return false, nil
	}
	err := os.Link(from, to)
	switch {
	case errors.Is(err, fs.ErrExist):
		if err := sameFile(from, to); err != nil {
			return false, err
		}
	case errors.Is(err, fs.ErrNotExist):
		// Deleted before it could be linked. If it held anything unseen, the sequence shows the hole.
		if _, serr := os.Stat(s.links); serr != nil {
			return false, fmt.Errorf("journal spool: %w", serr)
		}
		s.log.Warn("a file was deleted before it could be linked", "file", from)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("journal spool: %w: it must be on the file system of %s, and that must allow hard links", err, s.dir)
	}
	*known = slices.Insert(*known, at, num)
	return true, nil
}

// sameFile checks that a, if it is there, is the file that b is.
func sameFile(a, b string) error {
	fa, err := os.Stat(a)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fb, err := os.Stat(b)
	if err != nil {
		return err
	}
	if !os.SameFile(fa, fb) {
		return fmt.Errorf("%w: %s is not the file linked as %s; %s", ErrReplaced, a, b, spoolHint)
	}
	return nil
}

const spoolHint = "if the datadir was replaced on purpose, remove the spool directory"

// scan links all that the directory holds. It tells whether a link is new. An absent directory holds nothing.
func (s *spool) scan() (bool, error) {
	newest := s.newestManifest()
	l, err := list(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if l.pebble() {
		return false, errPebble(s.dir)
	}
	// LevelDB makes a new manifest before it removes the old one, so the newest never gets older.
	if n := len(l.manifests); newest > 0 && (n == 0 || l.manifests[n-1] < newest) {
		return false, fmt.Errorf("%w: %s no longer has %s, nor a newer one; %s", ErrReplaced, s.dir, manifestName(newest), spoolHint)
	}
	names := make([]string, 0, len(l.manifests)+len(l.journals))
	for _, num := range l.manifests {
		names = append(names, manifestName(num))
	}
	for _, num := range l.journals {
		names = append(names, journalName(num))
	}
	linked := false
	for _, name := range names {
		added, err := s.add(name, false)
		if err != nil {
			return linked, err
		}
		linked = linked || added
	}
	return linked, nil
}

// newestManifest is the highest number seen; 0 when none was. goleveldb's first manifest has the number 0, too.
func (s *spool) newestManifest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.manifests); n > 0 {
		return s.manifests[n-1]
	}
	return 0
}

// after returns the lowest linked journal above num.
func (s *spool) after(num uint64) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearch(s.journals, num)
	if found {
		at++
	}
	if at == len(s.journals) {
		return 0, false
	}
	return s.journals[at], true
}

// writtenAfter tells whether a journal above num has content: then LevelDB's writer has left num for good. (A newer
// journal that is empty does not say so: goleveldb creates the file before it is certain to use it.)
func (s *spool) writtenAfter(num uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.journals) - 1; i >= 0 && s.journals[i] > num; i-- {
		if fi, err := os.Stat(s.path(s.journals[i])); err == nil && fi.Size() > 0 {
			return true
		}
	}
	return false
}

// delivered notes that the receiver has all up to seq.
func (s *spool) delivered(m mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.marks); n > 1 && s.marks[n-1].journal == m.journal && m.end-s.marks[n-2].end < markStep &&
		s.marks[n-2].journal == m.journal {
		s.marks[n-1] = m
		return
	}
	s.marks = append(s.marks, m)
}

// passed notes that what stands there was published before this run.
func (s *spool) passed(journal uint64, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.marks) == 0 {
		s.published.journal, s.published.end = journal, end
	}
}

// publish notes that all up to seq is on the topic and removes the links of journals before the one it is in. The last
// journal before the oldest unpublished batch stays too: its end is the evidence for the void sequence of a restart.
func (s *spool) publish(seq uint64) {
	// Files are removed without the lock: freeing a large one takes a while, and new journals must be linked meanwhile.
	for _, path := range s.obsolete(seq) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot remove the link of a published journal", "file", path, "err", err)
		}
	}
}

func (s *spool) obsolete(seq uint64) (paths []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.marks) && s.marks[n].seq <= seq {
		s.published = s.marks[n]
		n++
	}
	s.marks = slices.Delete(s.marks, 0, n)
	at, _ := slices.BinarySearch(s.journals, s.published.journal)
	if n == 0 || at == 0 {
		return nil
	}
	for _, num := range s.journals[:at] {
		paths = append(paths, s.path(num))
		s.removed = num
	}
	s.journals = slices.Delete(s.journals, 0, at)
	// Manifests that can still explain a gap stay: those younger than the oldest journal kept, and the two before (the
	// one in force for that journal, and the one its database was opened from).
	at, _ = slices.BinarySearch(s.manifests, s.published.journal)
	if at -= 2; at > 0 {
		for _, num := range s.manifests[:at] {
			paths = append(paths, s.manifestPath(num))
		}
		s.manifests = slices.Delete(s.manifests, 0, at)
	}
	return paths
}

// bytes is the size of what is linked and not yet published.
func (s *spool) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total int64
	for _, num := range s.journals {
		if num < s.published.journal {
			continue
		}
		fi, err := os.Stat(s.path(num))
		if err != nil {
			continue
		}
		total += fi.Size()
		if num == s.published.journal {
			total -= min(s.published.end, fi.Size())
		}
	}
	return total
}

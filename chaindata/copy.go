package chaindata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CopyOptions tune Copy. The zero value copies a chaindata directory with the freezer in its ancient/ directory.
type CopyOptions struct {
	Ancient     string       // the source's freezer, where --datadir.ancient moved it; default src/ancient
	SkipAncient bool         // copy the LevelDB alone
	Logger      *slog.Logger // default: none

	// FreezerData takes the freezer's data files in Copy's place, so that who streams them elsewhere need not have them
	// twice: dst then holds the freezer without them. path is relative to the freezer's root, size what to read of f. It is
	// called for one file at a time, and again for the same path when geth cut or pruned the table meanwhile: the last
	// call counts, and only for the paths in CopyResult.FreezerData. io.EOF or io.ErrUnexpectedEOF from f is to be returned.
	FreezerData func(ctx context.Context, path string, f *os.File, size int64) error

	afterManifest func() // for tests: runs in each attempt when manifest and journals are open, before tables are linked
}

// CopyResult says what a copy holds.
type CopyResult struct {
	Sequence     uint64        // the last sequence in it: the copy holds all up to there, and nothing after
	Tables       int           // table files
	TableBytes   int64         // their bytes; hard links take no space
	Linked       int           // tables that are hard links, not copies
	JournalBytes int64         // bytes of journal records copied
	AncientBytes int64         // bytes of the freezer copied
	FreezerData  []string      // the data files that CopyOptions.FreezerData took
	Attempts     int           // how often the source had moved on; 1 is the least
	Elapsed      time.Duration // wall time
}

// ErrExists means: the target of a copy is there already.
var ErrExists = errors.New("the target exists")

// Copy makes a copy of a chaindata directory that may be live, as it was at one sequence. Tables are hard links where dst
// is on the same file system, all else is copied. dst appears whole and durable, or not at all.
//
// What makes it consistent: a manifest names a set of tables that hold exactly the sequences up to its own, and the
// journal that continues them. Tables never change, so the set is complete if each could still be linked afterwards.
// Journals go in order, the oldest first, so none is missing if the one named could still be opened after the listing;
// and they are cut where their sequences do not join (a write that went past the journal, a file that a listing taken
// while files came and went left out). If something was deleted meanwhile, the next attempt links only what is new.
func Copy(ctx context.Context, src, dst string, opts CopyOptions) (res CopyResult, err error) {
	start := time.Now()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Ancient == "" {
		opts.Ancient = filepath.Join(src, "ancient")
	}
	if _, err := os.Lstat(dst); err == nil {
		return res, fmt.Errorf("%w: %s", ErrExists, dst)
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return res, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dst), "."+filepath.Base(dst)+".partial-")
	if err != nil {
		return res, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	marker, err := sourceMarker(src)
	if err != nil {
		return res, err
	}
	c := &copier{src: src, dst: tmp, tables: make(map[uint64]string), res: &res, log: opts.Logger, hook: opts.afterManifest}
	if err := c.levelDB(ctx); err != nil {
		return res, err
	}
	if !opts.SkipAncient {
		// After the database: geth deletes a block there only when the freezer has it on disk. So a block may be in
		// both copies, never in neither.
		f := &freezerCopier{src: opts.Ancient, dst: filepath.Join(tmp, "ancient"), data: opts.FreezerData}
		if err = f.copy(ctx); err != nil {
			return res, fmt.Errorf("copy of the freezer: %w", err)
		}
		res.AncientBytes, res.FreezerData = f.bytes, f.taken()
	}
	if err := copyMarker(src, tmp, marker, res.Sequence); err != nil {
		return res, err
	}
	if err := errors.Join(syncDir(tmp), os.Chmod(tmp, 0o755)); err != nil {
		return res, err
	}
	if err := os.Rename(tmp, dst); err != nil {
		return res, err
	}
	res.Elapsed = time.Since(start)
	return res, syncDir(filepath.Dir(dst))
}

// sourceMarker is the zero Marker where there is none.
func sourceMarker(src string) (Marker, error) {
	m, err := ReadMarker(src)
	if errors.Is(err, ErrNoMarker) {
		return Marker{}, nil
	}
	return m, err
}

// copyMarker carries over the marker that src had when the copy began. A freezer takes its time, and a master may have
// opened another timeline meanwhile, on which the copy's sequence would mean something else.
func copyMarker(src, dst string, m Marker, sequence uint64) error {
	now, err := sourceMarker(src)
	if err != nil {
		return err
	}
	if now.Cluster != m.Cluster || now.Timeline != m.Timeline || now.Role != m.Role {
		return fmt.Errorf("%s changed hands during the copy (timeline %d to %d): copy it again", src, m.Timeline, now.Timeline)
	}
	if m == (Marker{}) {
		return nil
	}
	// A copy keeps the sequence it was given: its database's own moves on by one when somebody opens it (State.Reopened),
	// and a replica keeps its position in the database itself.
	if m.Role == RoleSource || m.Sequence == 0 {
		m.Sequence = sequence
	}
	m.Role = RoleCopy
	return WriteMarker(dst, m)
}

// copier copies the LevelDB part.
type copier struct {
	src, dst string
	tables   map[uint64]string // linked or copied so far, by number
	copied   bool              // hard links are not possible
	res      *CopyResult
	log      *slog.Logger
	hook     func()
}

// errMoved: a file was deleted while the copy went on.
var errMoved = errors.New("the source moved on")

func (c *copier) levelDB(ctx context.Context) error {
	if l, err := list(c.src); err != nil {
		return noDatabase(c.src, err)
	} else if l.pebble() {
		return errPebble(c.src)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.res.Attempts++
		err := c.attempt(ctx)
		if !errors.Is(err, errMoved) {
			return err
		}
		c.log.Debug("copy: once more", "attempt", c.res.Attempts, "cause", err)
	}
}

func moved(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	return err
}

func (c *copier) attempt(ctx context.Context) error {
	num, err := currentManifest(c.src)
	if errors.Is(err, ErrNoDatabase) && c.res.Attempts > 1 {
		return fmt.Errorf("%s was removed during the copy: %w", c.src, err)
	}
	if err != nil {
		return err
	}
	path := filepath.Join(c.src, manifestName(num))
	sess, end, err := readManifest(path, nil)
	if err != nil {
		return moved(err)
	}
	if !sess.hasJournal || !sess.hasSequence || sess.comparer != comparerName {
		return fmt.Errorf("%w: %s lacks a comparer, journal or sequence number", ErrCorruptManifest, path)
	}
	// Journals are opened first: they are the shorter-lived, and an open file outlives its name.
	journals, err := c.openJournals(sess.journal)
	defer func() {
		for _, f := range journals {
			f.Close()
		}
	}()
	if err != nil {
		return err
	}
	if c.hook != nil {
		c.hook()
	}
	if err := c.linkTables(ctx, sess.tables); err != nil {
		return err
	}
	if err := c.copyJournals(journals, sess.sequence); err != nil {
		return err
	}
	manifest, err := os.Open(path)
	if err != nil {
		return moved(err)
	}
	defer manifest.Close()
	if err := copyPrefix(manifest, filepath.Join(c.dst, manifestName(num)), end); err != nil {
		return err
	}
	return writeFileSynced(filepath.Join(c.dst, "CURRENT"), []byte(manifestName(num)+"\n"))
}

// openJournals opens the journals from first on, ascending. All of them are there if first is.
func (c *copier) openJournals(first uint64) ([]*os.File, error) {
	l, err := list(c.src)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, num := range l.journals {
		if num < first {
			continue
		}
		f, err := os.Open(filepath.Join(c.src, journalName(num)))
		if err != nil {
			return files, moved(err)
		}
		files = append(files, f)
		if len(files) == 1 && num != first {
			break
		}
	}
	if len(files) == 0 || filepath.Base(files[0].Name()) != journalName(first) {
		return files, fmt.Errorf("%w: %s is gone", errMoved, journalName(first))
	}
	return files, nil
}

// linkTables makes the copy's tables exactly these.
func (c *copier) linkTables(ctx context.Context, tables map[uint64]int64) error {
	for num, name := range c.tables {
		if _, ok := tables[num]; !ok {
			if err := os.Remove(filepath.Join(c.dst, name)); err != nil {
				return err
			}
			delete(c.tables, num)
		}
	}
	c.res.Tables, c.res.TableBytes, c.res.Linked = len(tables), 0, 0
	defer func() {
		if !c.copied {
			c.res.Linked = len(c.tables)
		}
	}()
	for num, size := range tables {
		c.res.TableBytes += size
		if _, ok := c.tables[num]; ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := tableName(num)
		err := c.table(name)
		if errors.Is(err, fs.ErrNotExist) {
			name = oldTableName(num)
			err = c.table(name)
		}
		if err != nil {
			return moved(err)
		}
		c.tables[num] = name
	}
	return nil
}

func (c *copier) table(name string) error {
	from, to := filepath.Join(c.src, name), filepath.Join(c.dst, name)
	if !c.copied {
		err := os.Link(from, to)
		if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
		c.copied = true
		c.log.Info("copy: no hard links between source and target, copying the tables", "cause", err)
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return copyPrefix(f, to, -1)
}

// copyJournals copies whole records as far as their sequences join, and removes what an attempt before left.
func (c *copier) copyJournals(files []*os.File, sequence uint64) error {
	old, err := list(c.dst)
	if err != nil {
		return err
	}
	for _, num := range old.journals {
		if err := os.Remove(filepath.Join(c.dst, journalName(num))); err != nil {
			return err
		}
	}
	for _, num := range old.manifests {
		if err := os.Remove(filepath.Join(c.dst, manifestName(num))); err != nil {
			return err
		}
	}
	c.res.JournalBytes = 0
	for _, f := range files {
		end, last, joined, err := joinedPrefix(f, sequence)
		if err != nil {
			return err
		}
		if err := copyPrefix(f, filepath.Join(c.dst, filepath.Base(f.Name())), end); err != nil {
			return err
		}
		c.res.JournalBytes += end
		sequence = last
		if !joined {
			break
		}
	}
	c.res.Sequence = sequence
	return nil
}

// joinedPrefix returns how many bytes of a journal hold batches that continue the sequence, and the last one's end.
func joinedPrefix(f *os.File, sequence uint64) (end int64, last uint64, joined bool, err error) {
	stop := errors.New("stop")
	last = sequence
	whole, err := scanRecords(f, f.Name(), func(b Batch, at int64) error {
		if b.Count == 0 {
			return nil
		}
		// A recovery that was cut short leaves a manifest whose sequence is the next one (State.Reopened).
		if b.First != last+1 && b.First != sequence {
			return stop
		}
		last, end = b.Last(), at
		return nil
	})
	if errors.Is(err, stop) {
		return end, last, false, nil
	}
	return whole.whole, last, true, err
}

// copyPrefix copies the first n bytes of a file (all for n < 0) under a new name and makes them durable.
func copyPrefix(from *os.File, to string, n int64) error {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if n < 0 {
		_, err = io.Copy(out, from)
	} else {
		_, err = io.CopyN(out, from, n)
	}
	return errors.Join(err, out.Sync(), out.Close())
}

package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"time"
)

// RestoreOptions tune Restore. Cluster, Store and Datadir are needed.
type RestoreOptions struct {
	Cluster  string
	Store    Store
	Select   Select // default: the newest usable one
	Datadir  string // geth's --datadir: chaindata comes to geth/chaindata
	Parallel int    // files at once; default 8
	// NoHardLinks copies tables although store and datadir share a file system. Links are safe, for nobody changes a
	// table; but one bad block of the disk is then in both.
	NoHardLinks bool
	// IgnoreFreeSpace begins although the files are larger than what is free: for file systems that compress.
	IgnoreFreeSpace bool
	Progress        func(Progress)
	Logger          *slog.Logger // default: none

	at func(step string) // for tests
}

// RestoreResult says what was restored.
type RestoreResult struct {
	Snapshot *Snapshot
	Resumed  bool  // an unfinished restore was finished
	Moved    int64 // bytes read from the store, compressed
	Elapsed  time.Duration
}

// restoringName is the directory beside chaindata in which a restore builds it up. It becomes chaindata when it is complete.
const restoringName = ".chaindata.restoring"

// restoringMark is beside it, in a file of its own: what is being restored.
type restoringMark struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"`
	ID      string `json:"id"`
	Files   string `json:"files"` // SHA-256 of the file list
}

// Restore brings a snapshot into an empty datadir, verified as it comes. Killed or failed, it is finished by calling it
// again; chaindata is there when it is whole and durable, not before.
// Errors: ErrUsage, ErrNotEmpty, ErrNoSnapshot, ErrUnverified, ErrCorrupt with the object's name, syscall.ENOSPC (before anything is
// written, where that can be told), those of the store.
func Restore(ctx context.Context, opts RestoreOptions) (res RestoreResult, err error) {
	start := time.Now()
	if opts.Datadir == "" {
		return res, fmt.Errorf("%w: a --datadir is needed", ErrUsage)
	}
	if opts.Parallel <= 0 {
		opts.Parallel = 8
	}
	if opts.at == nil {
		opts.at = func(string) {}
	}
	opts.Logger = logger(opts.Logger)
	target := chaindataOf(opts.Datadir)
	if err := checkEmpty(target); err != nil {
		return res, err
	}
	s, err := Find(ctx, opts.Store, opts.Cluster, opts.Select)
	if err != nil {
		return res, err
	}
	files, err := s.files(ctx, opts.Store)
	if err != nil {
		return res, err
	}
	work := filepath.Join(filepath.Dir(target), restoringName)
	unlock, err := lockTarget(filepath.Dir(target))
	if err != nil {
		return res, err
	}
	defer unlock()
	if res.Resumed, err = prepare(ctx, &opts, s, files, work); err != nil {
		return res, err
	}
	r := &fetcher{store: opts.Store, snap: s, dir: work}
	if dir, ok := opts.Store.(*DirStore); ok && !opts.NoHardLinks {
		r.link = dir
	}
	if !opts.IgnoreFreeSpace {
		if err := r.checkSpace(files); err != nil {
			return res, err
		}
	}
	opts.at("prepared")
	meter := newMeter("restore", opts.Progress)
	meter.total.Store(s.Files.Bytes)
	r.meter = meter
	if r.sums, err = s.loadSums(ctx, opts.Store); err == nil {
		err = r.fetch(ctx, files, opts.Parallel)
	}
	meter.end()
	if err != nil {
		return res, err
	}
	opts.at("fetched")
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	if err := finish(work, target); err != nil {
		return res, err
	}
	opts.at("renamed")
	res.Snapshot, res.Moved, res.Elapsed = s, meter.moved.Load(), time.Since(start)
	return res, nil
}

// checkEmpty refuses a datadir that holds a database, or the spool of one: a master's Follower would take it for this one's.
func checkEmpty(target string) error {
	for _, dir := range []string{target, filepath.Join(filepath.Dir(target), "drover-journals")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%w: %s holds %s and more: name another --datadir, or move that away", ErrNotEmpty, dir, entries[0].Name())
		}
	}
	return nil
}

// lockTarget keeps two restores to one datadir apart.
func lockTarget(parent string) (unlock func(), err error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	d, err := os.Open(parent)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		d.Close()
		return nil, fmt.Errorf("%w: another restore works on %s: %w", ErrNotEmpty, parent, err)
	}
	return func() { d.Close() }, nil
}

// prepare makes the work directory. What an unfinished restore left in it is kept as far as it is the same in this snapshot.
func prepare(ctx context.Context, opts *RestoreOptions, s *Snapshot, files []File, work string) (resumed bool, err error) {
	mark := restoringMark{Format: manifestFormat, Cluster: s.Cluster, ID: s.ID, Files: s.Files.SHA256}
	body, err := json.Marshal(mark)
	if err != nil {
		return false, err
	}
	path := work + ".json"
	found, err := os.ReadFile(path)
	var old restoringMark
	switch {
	case err == nil && decodeStrict(found, &old) == nil && old == mark:
		opts.Logger.Info("going on with an unfinished restore", "snapshot", s.ID)
		return true, keepOnly(work, files)
	case err == nil && old.Cluster == s.Cluster && old.ID != "":
		keep, err := common(ctx, opts.Store, old, files)
		if err != nil {
			return false, err
		}
		opts.Logger.Info("an unfinished restore of another snapshot is here: its files are kept where they are the same",
			"was", old.ID, "now", s.ID, "files", len(keep))
		if err := keepOnly(work, keep); err != nil {
			return false, err
		}
		resumed = len(keep) > 0
	case errors.Is(err, fs.ErrNotExist) || err == nil:
		if err := os.RemoveAll(work); err != nil {
			return false, err
		}
	default:
		return false, err
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return false, err
	}
	if err := writeFile(path, body); err != nil {
		return false, err
	}
	return resumed, syncDir(filepath.Dir(work))
}

// common are the files that another snapshot has just the same; none when that one was pruned.
func common(ctx context.Context, store Store, old restoringMark, files []File) ([]File, error) {
	s, err := load(ctx, store, keys(old.Cluster), old.ID)
	if errors.Is(err, ErrNotFound) || err == nil && (s.Broken != nil || s.Files.SHA256 != old.Files) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	theirs, err := s.files(ctx, store)
	if errors.Is(err, ErrCorrupt) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	have := make(map[string]*File, len(theirs))
	for i := range theirs {
		have[theirs[i].Path] = &theirs[i]
	}
	var same []File
	for _, f := range files {
		if h := have[f.Path]; h != nil && reflect.DeepEqual(*h, f) {
			same = append(same, f)
		}
	}
	return same, nil
}

// keepOnly removes all but these files. A file half-written has another name and goes, too.
func keepOnly(work string, files []File) error {
	keep := make(map[string]bool, len(files))
	for i := range files {
		keep[files[i].Path] = true
	}
	return filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(work, path)
		if err != nil || keep[filepath.ToSlash(rel)] {
			return err
		}
		return os.Remove(path)
	})
}

// finish gives the restored directory its name.
func finish(work, target string) error {
	err := os.Remove(target) // an empty directory, if anything
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s came to life during the restore", ErrNotEmpty, target)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(work, target); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return err
	}
	return os.Remove(work + ".json")
}

// writeFile writes a file whole or not at all and makes it durable.
func writeFile(path string, body []byte) error {
	tmp := path + partEnding
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// NeedsRestore tells whether a datadir holds no database yet, or the unfinished restore of one: what a replica started with
// --snapshot asks first.
func NeedsRestore(datadir string) (bool, error) {
	err := checkEmpty(chaindataOf(datadir))
	if errors.Is(err, ErrNotEmpty) {
		return false, nil
	}
	return err == nil, err
}

package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// DirStore keeps objects as files of a directory, which may be a mounted NFS. Each object is written to a temporary file,
// synced and renamed (Create: linked), so that a file under an object's name is whole, whatever was killed or cut off.
//
// Temporary files are locked (flock) while they are written: one that is not locked was left by a killed process.
type DirStore struct {
	root string
	name string

	step func(what string) // for tests: called before what can be cut off by a kill
}

func (s *DirStore) at(what string) {
	if s.step != nil {
		s.step(what)
	}
}

const (
	tempDir  = ".tmp"  // no key starts with a dot
	lockName = ".lock" // held while an object is exchanged or removed
)

// OpenDir returns the store in a directory. The directory itself is made by the first write, its parent has to be there:
// a store that vanished because it was not mounted is ErrUnreachable, never an empty one on the disk below.
func OpenDir(path string) (*DirStore, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{root, filepath.Dir(root)} {
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() {
			return nil, fmt.Errorf("%w: store %s: %s is not a directory", ErrUnreachable, path, dir)
		}
		if err == nil {
			return &DirStore{root: root, name: path}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: store %s: %w", ErrUnreachable, path, err)
		}
	}
	return nil, fmt.Errorf("%w: store %s: neither it nor the directory above it is there: is it mounted?", ErrUnreachable, path)
}

func (s *DirStore) String() string { return s.name }

func (s *DirStore) path(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }

// fail words an error of the file system as the store's.
func (s *DirStore) fail(key string, err error) error {
	var kind error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: store %s: make space there, or prune snapshots; what is in it stays valid", ErrFull, s.name)
	case errors.Is(err, fs.ErrNotExist):
		kind = ErrNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.EIO):
		kind = ErrUnreachable
	default:
		return fmt.Errorf("store %s: %s: %w", s.name, key, err)
	}
	return fmt.Errorf("%w: store %s: %s: %w", kind, s.name, key, err)
}

// Put writes the object beside its place, syncs it and renames it.
func (s *DirStore) Put(ctx context.Context, key string, body io.Reader, size int64) error {
	if err := s.putWhole(ctx, key, body, size); err != nil {
		return err
	}
	return s.fail(key, syncDir(filepath.Dir(s.path(key))))
}

// putWhole is Put for a caller who syncs the directory later: a power cut may take the whole object away, never a part.
func (s *DirStore) putWhole(ctx context.Context, key string, body io.Reader, size int64) error {
	tmp, err := s.write(ctx, key, body, size)
	if err != nil {
		return s.fail(key, err)
	}
	defer tmp.discard()
	return s.fail(key, s.place(tmp.path, key, os.Rename))
}

// Create links the written file to its name, which fails when the name is taken: link(2) is atomic over NFS too.
func (s *DirStore) Create(ctx context.Context, key string, body []byte) (string, error) {
	tmp, err := s.write(ctx, key, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return "", s.fail(key, err)
	}
	defer tmp.discard()
	if err = s.place(tmp.path, key, os.Link); err == nil {
		err = syncDir(filepath.Dir(s.path(key)))
	}
	if errors.Is(err, fs.ErrExist) && !tmp.linked() { // an NFS server may have done it, and its answer got lost
		return "", fmt.Errorf("%w: store %s: %s", ErrExists, s.name, key)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", s.fail(key, err)
	}
	return tmp.version, nil
}

// Replace exchanges the object under the store's lock.
func (s *DirStore) Replace(ctx context.Context, key string, body []byte, version string) (string, error) {
	tmp, err := s.write(ctx, key, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return "", s.fail(key, err)
	}
	defer tmp.discard()
	unlock, err := s.lock(ctx)
	if err != nil {
		return "", s.fail(key, err)
	}
	defer unlock()
	fi, err := os.Stat(s.path(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", s.fail(key, err)
	}
	if err != nil || versionOf(fi) != version {
		return "", fmt.Errorf("%w: store %s: %s", ErrConflict, s.name, key)
	}
	if err := s.place(tmp.path, key, os.Rename); err != nil {
		return "", s.fail(key, err)
	}
	return tmp.version, s.fail(key, syncDir(filepath.Dir(s.path(key))))
}

// place moves a written file to its name by rename or link. The name is durable when the directory was synced.
func (s *DirStore) place(tmp, key string, move func(from, to string) error) error {
	to := s.path(key)
	s.at("place")
	err := move(tmp, to)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeDir(filepath.Dir(to)); err != nil {
			return err
		}
		err = move(tmp, to)
	}
	if err == nil {
		s.at("placed")
	}
	return err
}

// makeDir is MkdirAll below the store's root whose directories survive a power cut.
func (s *DirStore) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if dir != s.root {
		if err := s.makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// tempFile is a written, synced file that waits to be named.
type tempFile struct {
	f       *os.File
	path    string
	version string
}

// linked tells whether the file has its second name.
func (t tempFile) linked() bool {
	fi, err := t.f.Stat()
	return err == nil && fi.Sys().(*syscall.Stat_t).Nlink > 1
}

func (t tempFile) discard() {
	_ = os.Remove(t.path) // gone when it was renamed
	t.f.Close()
}

// write makes a temporary file of exactly size bytes.
func (s *DirStore) write(ctx context.Context, key string, body io.Reader, size int64) (tempFile, error) {
	if err := checkKey(key); err != nil {
		return tempFile{}, err
	}
	f, err := s.temp()
	if err != nil {
		return tempFile{}, err
	}
	t := tempFile{f: f, path: f.Name()}
	s.at("write")
	n, err := io.Copy(f, io.LimitReader(contextReader{ctx, body}, size+1))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes announced, %d came: %w", size, n, io.ErrUnexpectedEOF)
	}
	// The time to the nanosecond is what tells two versions apart.
	now := time.Now()
	if err = errors.Join(err, os.Chtimes(t.path, now, now)); err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.discard()
		return t, err
	}
	fi, err := f.Stat()
	if err != nil {
		t.discard()
		return t, err
	}
	t.version = versionOf(fi)
	return t, nil
}

// temp creates a temporary file and locks it. Somebody who cleans up may take the lock first and remove the file.
func (s *DirStore) temp() (*os.File, error) {
	dir := filepath.Join(s.root, tempDir)
	for {
		f, err := os.CreateTemp(dir, "put-*")
		if errors.Is(err, fs.ErrNotExist) {
			if err = s.makeDir(dir); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if held, err := lockFile(f); held && err == nil {
			return f, f.Chmod(0o644)
		} else if err != nil {
			f.Close()
			return nil, err
		}
		f.Close()
	}
}

// lockFile takes the lock of a file that this process created; false when a cleaner removed it meanwhile.
func lockFile(f *os.File) (bool, error) {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	return fi.Sys().(*syscall.Stat_t).Nlink > 0, nil
}

// abandoned opens a lock file whose owner is dead: nobody holds its lock. nil when somebody does.
func abandoned(path string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		f.Close()
		return nil
	}
	return f
}

// Clean removes what killed processes left half-written. Create calls it.
func (s *DirStore) Clean() error {
	entries, err := os.ReadDir(filepath.Join(s.root, tempDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(s.root, tempDir, e.Name())
		if f := abandoned(path); f != nil {
			if rmErr := os.Remove(path); !errors.Is(rmErr, fs.ErrNotExist) { // its owner was just done
				err = errors.Join(err, rmErr)
			}
			f.Close()
		}
	}
	return s.fail(tempDir, err)
}

// lock serializes Replace and Delete among processes.
func (s *DirStore) lock(ctx context.Context) (unlock func(), err error) {
	if err := s.makeDir(s.root); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.root, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// Get opens the object's file.
func (s *DirStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	s.at("get")
	f, err := os.Open(s.path(key))
	if err != nil {
		if _, rootErr := os.Stat(s.root); rootErr != nil {
			return nil, fmt.Errorf("%w: store %s: %w (is it mounted?)", cmp.Or(s.absent(), ErrNotFound), s.name, rootErr)
		}
		return nil, s.fail(key, err)
	}
	if fi, err := f.Stat(); err != nil || fi.IsDir() {
		f.Close()
		return nil, s.fail(key, cmp.Or(err, fs.ErrNotExist))
	}
	if length < 0 {
		length = 1<<63 - 1 - offset
	}
	return struct {
		io.Reader
		io.Closer
	}{contextReader{ctx, io.NewSectionReader(f, offset, length)}, f}, nil
}

// absent is ErrUnreachable when not even the directory above the store is there.
func (s *DirStore) absent() error {
	if _, err := os.Stat(filepath.Dir(s.root)); err != nil {
		return ErrUnreachable
	}
	return nil
}

// List walks the directories that can hold the prefix.
func (s *DirStore) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := s.absent(); err != nil {
			yield(Object{}, fmt.Errorf("%w: store %s: the directory above it is gone: is it mounted?", err, s.name))
			return
		}
		s.walk(ctx, "", prefix, yield)
	}
}

// walk yields what is below dir ("" or a key's part that ends in "/"); false ends it.
func (s *DirStore) walk(ctx context.Context, dir, prefix string, yield func(Object, error) bool) bool {
	entries, err := os.ReadDir(s.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err = cmp.Or(err, ctx.Err()); err != nil {
		yield(Object{}, s.fail(dir, err))
		return false
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if name[0] == '.' {
			continue
		}
		if e.IsDir() {
			name += "/" // it is by the whole key that objects are in order
		}
		if key := dir + name; strings.HasPrefix(key, prefix) || e.IsDir() && strings.HasPrefix(prefix, key) {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	for _, key := range names {
		if strings.HasSuffix(key, "/") {
			if !s.walk(ctx, key, prefix, yield) {
				return false
			}
			continue
		}
		fi, err := os.Stat(s.path(key))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			yield(Object{}, s.fail(key, err))
			return false
		}
		if !yield(Object{Key: key, Size: fi.Size(), Modified: fi.ModTime(), Version: versionOf(fi)}, nil) {
			return false
		}
	}
	return true
}

// versionOf tells one file from the next under the same name.
func versionOf(fi os.FileInfo) string {
	return fmt.Sprintf("%x-%x", fi.ModTime().UnixNano(), fi.Sys().(*syscall.Stat_t).Ino)
}

// Delete unlinks the files. Directories stay: removing one races with who writes into it.
func (s *DirStore) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	if _, err := os.Stat(s.root); errors.Is(err, fs.ErrNotExist) {
		return s.absent()
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return s.fail(lockName, err)
	}
	defer unlock()
	dirs := make(map[string]bool)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.at("delete")
		// Not os.Remove: a directory is no object.
		err := syscall.Unlink(s.path(key))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.EISDIR) {
			return s.fail(key, err)
		}
		if err == nil {
			dirs[filepath.Dir(s.path(key))] = true
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return s.fail(dir, err)
		}
	}
	return nil
}

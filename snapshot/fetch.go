package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// fetcher brings a snapshot's files into a directory and compares all it reads with the checksums.
type fetcher struct {
	store  Store
	snap   *Snapshot
	dir    string // the chaindata directory to be
	link   *DirStore
	check  bool              // read hard-linked tables, too
	sums   map[string]string // of hard-linked objects, by key
	learnt map[string]string // sums of objects that had none, when check is set
	meter  *meter
	mu     sync.Mutex

	decoders sync.Pool // of *zstd.Decoder
	buffers  sync.Pool // of *[]byte
}

// fetch brings all files. Those that are there already by name and size were finished by an earlier run.
func (r *fetcher) fetch(ctx context.Context, files []File, parallel int) error {
	if err := r.makeDirs(files); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range files {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return r.file(ctx, &files[i]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return r.syncDirs(files)
}

func (r *fetcher) makeDirs(files []File) error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	for i := range files {
		if strings.Contains(files[i].Path, "/") {
			if err := os.MkdirAll(filepath.Dir(r.path(&files[i])), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *fetcher) syncDirs(files []File) error {
	dirs := map[string]bool{r.dir: true}
	for i := range files {
		for dir := filepath.Dir(r.path(&files[i])); !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (r *fetcher) path(f *File) string { return filepath.Join(r.dir, filepath.FromSlash(f.Path)) }

// partEnding marks a file that is being written. geth and LevelDB have no such names.
const partEnding = ".drover-part"

// file brings one file. A connection that breaks in the middle is no reason to give up hours of work.
func (r *fetcher) file(ctx context.Context, f *File) error {
	const attempts = 4
	for try := 1; ; try++ {
		err := r.once(ctx, f)
		if !errors.Is(err, errBroken) || try == attempts || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second << try):
		}
	}
}

// errBroken means: the store stopped in the middle of an object.
var errBroken = errors.New("reading was cut off")

func (r *fetcher) once(ctx context.Context, f *File) error {
	to := r.path(f)
	if fi, err := os.Lstat(to); err == nil && fi.Size() == f.Size && !r.check {
		r.meter.done.Add(f.Size)
		return nil
	}
	if r.link != nil && r.linkable(f) {
		err := r.linkFile(ctx, f, to)
		if !errors.Is(err, errNoLink) {
			return err
		}
	}
	part := to + partEnding
	out, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return r.full(err)
	}
	for _, p := range f.Pieces {
		if err = r.piece(ctx, f, p, out); err != nil {
			break
		}
	}
	if err == nil {
		err = r.full(out.Sync())
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		_ = os.Remove(part)
	}
	return err
}

// linkable tells whether a file is a whole object in a directory store.
func (r *fetcher) linkable(f *File) bool {
	return len(f.Pieces) == 1 && isTable(f.Path) && !f.Pieces[0].zstd()
}

func isTable(path string) bool {
	return strings.HasSuffix(path, ".ldb") || strings.HasSuffix(path, ".sst")
}

// full words an error of the target's file system.
func (r *fetcher) full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("no space left for %s: make space, then run the same again, it goes on where it stopped: %w", r.dir, err)
	}
	return err
}

// linkFile makes a table a hard link to its object: tables never change, so the store and geth can share it. The content
// is compared with its checksum like any other before the link has its name.
func (r *fetcher) linkFile(ctx context.Context, f *File, to string) error {
	p, part := f.Pieces[0], to+partEnding
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Link(r.link.path(keys(r.snap.Cluster).object(p.Object)), part)
	switch {
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EMLINK), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EOPNOTSUPP):
		return errNoLink
	case errors.Is(err, fs.ErrNotExist):
		return r.damaged(f, p, ErrNotFound)
	case err != nil:
		return r.full(err)
	}
	if err = r.piece(ctx, f, p, io.Discard); err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		_ = os.Remove(part)
	}
	return err
}

// piece writes one piece's content to out and compares it with its checksum.
func (r *fetcher) piece(ctx context.Context, f *File, p Piece, out io.Writer) error {
	body, err := r.store.Get(ctx, keys(r.snap.Cluster).object(p.Object), 0, -1)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return r.damaged(f, p, err)
		}
		return err
	}
	defer body.Close()
	source := &sourceReader{r: body, meter: r.meter}
	from := io.Reader(source)
	if p.zstd() {
		z, ok := r.decoders.Get().(*zstd.Decoder)
		if !ok {
			if z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(2*pieceSize)); err != nil {
				return err
			}
		}
		defer r.decoders.Put(z)
		if err := z.Reset(from); err != nil {
			return r.damaged(f, p, err)
		}
		from = z
	}
	sum := sha256.New()
	w := &progressWriter{out: out, sum: sum, meter: r.meter}
	buffer, ok := r.buffers.Get().(*[]byte)
	if !ok {
		b := make([]byte, 256<<10)
		buffer = &b
	}
	defer r.buffers.Put(buffer)
	n, err := io.CopyBuffer(w, io.LimitReader(from, p.Size+1), *buffer)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case w.failed != nil:
		return r.full(w.failed)
	case source.failed != nil: // which says nothing about the content
		r.meter.done.Add(-n)
		return fmt.Errorf("store %s: object %s: %w: %w", r.store, p.Object, errBroken, source.failed)
	case err != nil:
		return r.damaged(f, p, err)
	case n != p.Size:
		return r.damaged(f, p, fmt.Errorf("%d bytes or more, the list says %d", n, p.Size))
	}
	return r.compare(f, p, hex.EncodeToString(sum.Sum(nil)))
}

// compare checks a sum, or learns it where nobody knew it.
func (r *fetcher) compare(f *File, p Piece, got string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	want := p.SHA256
	if want == "" {
		want = r.sums[p.Object]
	}
	if want == "" {
		if r.learnt != nil {
			r.learnt[p.Object] = got
		}
		return nil
	}
	if got != want {
		return r.damaged(f, p, fmt.Errorf("its SHA-256 is %s, not %s", got, want))
	}
	return nil
}

// damaged names what is wrong in one line.
func (r *fetcher) damaged(f *File, p Piece, cause error) error {
	return fmt.Errorf("%w: snapshot %s in store %s: file %s, object %s: %w", ErrCorrupt, r.snap.ID, r.store, f.Path, p.Object, cause)
}

// sourceReader counts, and tells a failed read from what a decoder makes of the content.
type sourceReader struct {
	r      io.Reader
	meter  *meter
	failed error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.meter.moved.Add(int64(n))
	if err != nil && err != io.EOF {
		s.failed = err
	}
	return n, err
}

// progressWriter hashes and counts what it writes, and tells a failed write from a failed read.
type progressWriter struct {
	out    io.Writer
	sum    hash.Hash
	meter  *meter
	failed error
}

func (w *progressWriter) Write(p []byte) (int, error) {
	w.sum.Write(p)
	n, err := w.out.Write(p)
	w.failed = err
	w.meter.done.Add(int64(n))
	return n, err
}

// loadSums reads the checksums that a verification found for the snapshot's hard links.
func (s *Snapshot) loadSums(ctx context.Context, store Store) (map[string]string, error) {
	if s.Verified == nil || s.Verified.Sums == "" {
		return nil, nil
	}
	b, err := readObject(ctx, store, keys(s.Cluster).sums(s.ID), listLimit)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: snapshot %s in store %s: %w", ErrCorrupt, s.ID, store, err)
	}
	if err != nil {
		return nil, err
	}
	if sumOf(b) != s.Verified.Sums {
		return nil, fmt.Errorf("%w: snapshot %s in store %s: sums.zst is not the one that verified.json names", ErrCorrupt, s.ID, store)
	}
	lines, err := decodeLines[objectSum](b, s.Files.Count)
	if err != nil {
		return nil, err
	}
	sums := make(map[string]string, len(lines))
	for _, l := range lines {
		sums[l.Object] = l.SHA256
	}
	return sums, nil
}

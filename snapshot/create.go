package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// Compression says whether objects are compressed.
type Compression string

// Compressions. A directory store gets plain objects by default: they can be hard-linked on restore, and a disk is faster
// than a compressor.
const (
	CompressAuto Compression = ""
	CompressZstd Compression = "zstd"
	CompressNone Compression = "none"
)

// Topic is what Create asks of the change log; *changelog.Log is one.
type Topic interface {
	// FindSequence returns the offset from which a database at (timeline, sequence) reads on.
	FindSequence(ctx context.Context, timeline, sequence uint64) (int64, error)
}

// CreateOptions tune Create. Cluster, Store and Datadir or Chaindata are needed.
type CreateOptions struct {
	Cluster   string
	Store     Store
	Datadir   string // geth's --datadir: its chaindata is at geth/chaindata
	Chaindata string // instead of Datadir
	Ancient   string // the freezer, where geth's --datadir.ancient moved it; default Chaindata/ancient

	Topic         Topic       // finds the Kafka offset of a master's position; nil: unknown
	Node          string      // default: the host's name
	GethVersion   string      // for the manifest
	DroverVersion string      // for the manifest
	Compression   Compression // default: none for a directory, zstd for all others
	Parallel      int         // pieces at once, each up to 64 MiB of memory (twice that with zstd); default 4
	NoHardLinks   bool        // copy tables although the store is on their file system: it shall survive that disk
	Progress      func(Progress)
	Logger        *slog.Logger // default: none

	at func(step string) // for tests: called between the steps
}

// CreateResult says what was made.
type CreateResult struct {
	Manifest *Manifest
	Objects  int64 // new objects
	Links    int64 // new hard links among the tables
	Moved    int64 // bytes sent, compressed
	Reused   int64 // bytes that the store had already
	Elapsed  time.Duration
	Copying  time.Duration // of it: until the position was fixed
}

func (o *CreateOptions) check() error {
	if err := changelog.CheckCluster(o.Cluster); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	switch {
	case o.Store == nil:
		return fmt.Errorf("%w: a --store is needed", ErrUsage)
	case o.Datadir == "" && o.Chaindata == "":
		return fmt.Errorf("%w: a --datadir is needed", ErrUsage)
	case o.Compression != CompressAuto && o.Compression != CompressZstd && o.Compression != CompressNone:
		return fmt.Errorf("%w: compression %q: use zstd or none", ErrUsage, o.Compression)
	}
	if o.Chaindata == "" {
		o.Chaindata = chaindataOf(o.Datadir)
	}
	var err error
	if o.Chaindata, err = filepath.Abs(o.Chaindata); err != nil {
		return err
	}
	if o.Ancient == "" {
		o.Ancient = filepath.Join(o.Chaindata, "ancient")
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Node == "" {
		if o.Node, err = os.Hostname(); err != nil {
			return err
		}
	}
	o.Logger = logger(o.Logger)
	if o.at == nil {
		o.at = func(string) {}
	}
	return nil
}

func chaindataOf(datadir string) string { return filepath.Join(datadir, "geth", "chaindata") }

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Create takes a snapshot of a chaindata directory that may be live, a master's or a replica's, without stopping or locking
// it. Killed at any point it leaves no snapshot, and the next run cleans up and does not send again what this one had sent.
//
// On the store's own file system tables become hard links, and the call takes seconds however large the database is.
// Errors: ErrUsage, ErrBusy, ErrWrongCluster, ErrFull, ErrUnreachable, chaindata's and those of the store.
func Create(ctx context.Context, opts CreateOptions) (res CreateResult, err error) {
	start := time.Now()
	if err := opts.check(); err != nil {
		return res, err
	}
	// Before the lease: a directory that holds nothing makes no store.
	if _, err := chaindata.Inspect(opts.Chaindata); err != nil {
		return res, err
	}
	k := keys(opts.Cluster)
	lease, ctx, err := acquire(ctx, opts.Store, k.lease("writer"), "create", opts.Logger)
	if err != nil {
		return res, err
	}
	defer lease.release()
	if c, ok := opts.Store.(interface{ Clean() error }); ok {
		if err := c.Clean(); err != nil {
			return res, err
		}
	}
	stage, err := openStage(filepath.Join(filepath.Dir(opts.Chaindata), stageName))
	if err != nil {
		return res, fmt.Errorf("staging beside %s: %w", opts.Chaindata, err)
	}
	defer func() { err = errors.Join(err, stage.remove()) }()
	opts.at("staged")
	c := &creation{opts: opts, keys: k, stage: stage, lease: lease, start: start}
	if err := c.run(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return c.res, err
	}
	c.res.Elapsed = time.Since(start)
	return c.res, nil
}

// creation is one run of Create.
type creation struct {
	opts  CreateOptions
	keys  keys
	stage *stage
	lease *lease
	start time.Time
	send  *sender
	res   CreateResult

	freezer map[string]File // by path: the data files as they were last sent
}

func (c *creation) run(ctx context.Context) error {
	sums, err := openSums(c.stage.area)
	if err != nil {
		return err
	}
	defer sums.close()
	meter := newMeter("copy", c.opts.Progress)
	defer meter.end()
	if c.send, err = c.newSender(ctx, sums, meter); err != nil {
		return err
	}
	source, err := chaindata.ReadMarker(c.opts.Chaindata)
	if err != nil && !errors.Is(err, chaindata.ErrNoMarker) {
		return err
	}
	master := err == nil && source.IsSource(c.opts.Chaindata)
	created := time.Now()
	files, dir, err := c.copy(ctx, meter)
	if err != nil {
		return err
	}
	c.opts.at("copied")
	m, err := c.describe(ctx, dir, master)
	if err != nil {
		return err
	}
	m.Created = created.UTC().Truncate(time.Millisecond)
	if m.ID, err = c.freeID(ctx, created, m.Head.Number); err != nil {
		return err
	}
	rest, err := c.sendStaged(ctx, dir)
	if err != nil {
		return err
	}
	c.opts.at("sent")
	files = append(files, rest...)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if err := c.publish(ctx, m, files); err != nil {
		return err
	}
	c.res.Manifest, c.res.Objects, c.res.Links = m, c.send.sent.Load(), c.send.linked.Load()
	c.res.Moved, c.res.Reused = meter.moved.Load(), c.send.reused.Load()
	if err := sums.save(); err != nil {
		c.opts.Logger.Warn("checksums were not kept: the next snapshot reads everything again", "cause", err)
	}
	return nil
}

// freeID returns an ID that no snapshot has: the list of files of one that is there must not be written over.
func (c *creation) freeID(ctx context.Context, at time.Time, block uint64) (string, error) {
	for ; ; at = at.Add(time.Second) {
		id := newID(at, block)
		_, err := readObject(ctx, c.opts.Store, c.keys.manifest(id), manifestLimit)
		if errors.Is(err, ErrNotFound) {
			return id, nil
		}
		if err != nil {
			return "", err
		}
	}
}

func (c *creation) newSender(ctx context.Context, sums *sumCache, meter *meter) (*sender, error) {
	s := &sender{store: c.opts.Store, keys: c.keys, sums: sums, meter: meter, have: make(map[[32]byte]string), dirs: make(map[string]bool)}
	dir, local := c.opts.Store.(*DirStore)
	s.local = dir
	if local && !c.opts.NoHardLinks {
		s.link = dir
	}
	var err error
	if !local {
		if s.have, err = loadObjects(ctx, c.opts.Store, c.keys); err != nil {
			return nil, err
		}
	}
	if c.opts.Compression == CompressZstd || c.opts.Compression == CompressAuto && !local {
		s.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(min(c.opts.Parallel, runtime.NumCPU())))
	}
	return s, err
}

// group makes the sender ready for a set of files, which are sent when the group has ended.
func (c *creation) group(ctx context.Context) *errgroup.Group {
	c.send.group, c.send.ctx = errgroup.WithContext(ctx)
	c.send.group.SetLimit(c.opts.Parallel)
	return c.send.group
}

// copy makes the staged copy, and sends the freezer's data files straight from the source meanwhile.
func (c *creation) copy(ctx context.Context, meter *meter) ([]File, string, error) {
	dir := filepath.Join(c.stage.dir, "chaindata")
	c.freezer = make(map[string]File)
	size, err := freezerSize(c.opts.Ancient)
	if err != nil {
		return nil, "", err
	}
	meter.total.Store(size)
	res, err := chaindata.Copy(ctx, c.opts.Chaindata, dir, chaindata.CopyOptions{
		Ancient: c.opts.Ancient, Logger: c.opts.Logger, FreezerData: c.freezerFile,
	})
	if err != nil {
		return nil, "", err
	}
	meter.total.Add(res.TableBytes + res.JournalBytes)
	c.res.Copying = time.Since(c.start)
	files := make([]File, 0, len(res.FreezerData))
	for _, path := range res.FreezerData {
		files = append(files, c.freezer[path])
	}
	return files, dir, nil
}

// freezerFile sends one data file of the freezer. It is called again when geth cut the file meanwhile.
func (c *creation) freezerFile(ctx context.Context, path string, f *os.File, size int64) error {
	group := c.group(ctx)
	pieces, err := c.send.file(f, size, func() {})
	if err = errors.Join(group.Wait(), err); err != nil {
		return err
	}
	c.freezer[path] = File{Path: filepath.ToSlash(filepath.Join("ancient", path)), Size: size, Pieces: pieces}
	return nil
}

func freezerSize(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if fi, err := d.Info(); err == nil && strings.HasSuffix(path, "dat") {
			total += fi.Size()
		}
		return nil
	})
	return total, err
}

// sendStaged sends what is in the staged copy, tables as hard links where possible.
func (c *creation) sendStaged(ctx context.Context, dir string) ([]File, error) {
	group := c.group(ctx)
	var files []*File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if err := c.send.ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		fi, err := f.Stat()
		if err != nil {
			f.Close()
			return err
		}
		file := &File{Path: filepath.ToSlash(rel), Size: fi.Size()}
		files = append(files, file)
		if strings.HasSuffix(rel, ".ldb") || strings.HasSuffix(rel, ".sst") {
			file.Pieces, err = c.send.table(f, file.Size)
		} else {
			file.Pieces, err = c.send.file(f, file.Size, func() { f.Close() })
		}
		return err
	})
	// The group's error first: it is the cause of the walk's, which is that the context ended.
	if groupErr := group.Wait(); groupErr != nil {
		return nil, groupErr
	}
	if err != nil {
		return nil, err
	}
	if err := c.send.syncDirs(); err != nil {
		return nil, err
	}
	sent := make([]File, len(files))
	for i, f := range files {
		sent[i] = *f
	}
	return sent, nil
}

// publish writes the file list and, last, the manifest.
func (c *creation) publish(ctx context.Context, m *Manifest, files []File) error {
	list, err := encodeLines(files)
	if err != nil {
		return err
	}
	m.Files = FileList{Count: len(files), Size: int64(len(list)), SHA256: sumOf(list)}
	for i := range files {
		m.Files.Bytes += files[i].Size
	}
	body, err := m.encode()
	if err != nil {
		return err
	}
	if err := c.opts.Store.Put(ctx, c.keys.files(m.ID), newBody(list), int64(len(list))); err != nil {
		return err
	}
	c.opts.at("listed")
	// Somebody who took the lease may have removed objects that this snapshot builds on.
	if err := c.lease.confirm(ctx); err != nil {
		return err
	}
	if _, err := c.opts.Store.Create(ctx, c.keys.manifest(m.ID), body); err != nil {
		return err
	}
	c.opts.at("published")
	return nil
}

package snapshot

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"golang.org/x/sync/errgroup"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/chaindata/statecheck"
)

// VerifyOptions tune Verify. Cluster and Store are needed; WorkDir too, unless the store is a directory.
type VerifyOptions struct {
	Cluster string
	Store   Store
	Select  Select // default: the newest, verified or not
	// WorkDir gets a throw-away copy of the database. Default: a hidden directory of a directory store, where tables are
	// hard links; else it needs room for all of it.
	WorkDir string
	// SampleFraction walks so much of the head's state, for states that take too long: 0 or 1 is all of it.
	SampleFraction float64
	// Replay replays some of the topic on the copy in datadir; nil: that is left out.
	Replay func(ctx context.Context, datadir string) error
	// IgnoreFreeSpace begins although WorkDir has less free space than the copy takes: for file systems that compress.
	IgnoreFreeSpace bool
	Parallel        int // default 4
	Node            string
	DroverVersion   string
	Progress        func(Progress)
	Logger          *slog.Logger // default: none
}

// replayedSample is how much of the state is walked again at the head that Replay came to.
const replayedSample = 0.02

// Verify proves that a snapshot can be started from: every byte is what its checksum says, every block of every table is
// what LevelDB wrote, the whole state of the head is there, and (with Replay) the topic goes on from it. Then it writes
// verified.json, which makes the snapshot usable. One that fails with ErrCorrupt is no longer usable if it was. An error with
// syscall.ENOSPC says that WorkDir has no room for the copy.
func Verify(ctx context.Context, opts VerifyOptions) (res *Snapshot, err error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	sel := opts.Select
	sel.Unverified = true
	s, err := Find(ctx, opts.Store, opts.Cluster, sel)
	if err != nil {
		return nil, err
	}
	stage, err := openStage(opts.WorkDir)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, stage.remove()) }()
	v := &verifying{opts: opts, keys: keys(opts.Cluster), snap: s, datadir: stage.dir, what: fmt.Sprintf("snapshot %s in store %s", s.ID, opts.Store)}
	v.now = Verification{Format: manifestFormat, Manifest: s.manifestSum, Node: opts.Node, DroverVersion: opts.DroverVersion}
	start := time.Now()
	if err := v.run(ctx); err != nil {
		return s, v.failed(ctx, err)
	}
	v.now.At, v.now.Seconds = time.Now().UTC().Truncate(time.Millisecond), time.Since(start).Seconds()
	return s, v.publish(ctx)
}

func (o *VerifyOptions) check() error {
	if err := checkClusterAndStore(o.Cluster, o.Store); err != nil {
		return err
	}
	if o.WorkDir == "" {
		dir, ok := o.Store.(*DirStore)
		if !ok {
			return fmt.Errorf("%w: a --work-dir is needed, with room for the whole database", ErrUsage)
		}
		o.WorkDir = filepath.Join(dir.root, ".verify")
	}
	if o.SampleFraction < 0 || o.SampleFraction > 1 {
		return fmt.Errorf("%w: sample fraction %g: from 0 to 1", ErrUsage, o.SampleFraction)
	}
	if o.SampleFraction == 0 {
		o.SampleFraction = 1
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Node == "" {
		o.Node, _ = os.Hostname()
	}
	o.Logger = logger(o.Logger)
	return nil
}

type verifying struct {
	opts    VerifyOptions
	keys    keys
	snap    *Snapshot
	datadir string
	what    string // is verified, for errors
	meter   *meter
	learnt  map[string]string
	now     Verification
}

func (v *verifying) run(ctx context.Context) error {
	files, err := v.snap.files(ctx, v.opts.Store)
	if err != nil {
		return err
	}
	v.meter = newMeter("verify: checksums", v.opts.Progress)
	defer v.meter.end()
	v.meter.total.Store(v.snap.Files.Bytes)
	if err := v.fetch(ctx, files); err != nil {
		return err
	}
	v.now.Files, v.now.Bytes = len(files), v.snap.Files.Bytes
	if err := v.checkTables(ctx, files); err != nil {
		return err
	}
	if err := v.checkManifest(); err != nil {
		return err
	}
	counts, err := v.walk(ctx, v.snap.Head.Root, v.opts.SampleFraction)
	if err != nil {
		return err
	}
	v.now.TrieNodes, v.now.Accounts, v.now.Slots, v.now.Codes = counts.Nodes, counts.Accounts, counts.Slots, counts.Codes
	v.now.Sample = v.opts.SampleFraction
	return v.replay(ctx)
}

// fetch makes the throw-away copy and reads all of it.
func (v *verifying) fetch(ctx context.Context, files []File) error {
	sums, err := v.knownSums(ctx)
	if err != nil {
		return err
	}
	v.learnt = make(map[string]string)
	r := &fetcher{
		store: v.opts.Store, snap: v.snap, dir: chaindataOf(v.datadir), meter: v.meter, check: true, sums: sums, learnt: v.learnt,
	}
	r.link, _ = v.opts.Store.(*DirStore)
	if !v.opts.IgnoreFreeSpace {
		if err := r.checkSpace(files); err != nil {
			return err
		}
	}
	if err := r.fetch(ctx, files, v.opts.Parallel); err != nil {
		return err
	}
	for i := range files {
		for _, p := range files[i].Pieces {
			if p.SHA256 == "" && v.learnt[p.Object] == "" {
				v.learnt[p.Object] = sums[p.Object]
			}
		}
	}
	return nil
}

// knownSums gathers what verifications found for hard links, of all snapshots: they share objects, and one that was good
// then has to be the same now.
func (v *verifying) knownSums(ctx context.Context) (map[string]string, error) {
	all, err := List(ctx, ListOptions{Cluster: v.opts.Cluster, Store: v.opts.Store})
	if err != nil {
		return nil, err
	}
	known := make(map[string]string)
	for _, s := range all {
		if !s.Usable() {
			continue
		}
		sums, err := s.loadSums(ctx, v.opts.Store)
		if errors.Is(err, ErrCorrupt) && s.ID != v.snap.ID {
			continue // pruned meanwhile, or another's trouble
		}
		if err != nil {
			return nil, err
		}
		for object, sum := range sums {
			known[object] = sum
		}
	}
	return known, nil
}

// checkTables compares all blocks of all tables with LevelDB's own checksums: a table may have been damaged before it got here.
func (v *verifying) checkTables(ctx context.Context, files []File) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.opts.Parallel)
	var total int64
	for i := range files {
		if isTable(files[i].Path) {
			v.now.Tables++
			total += files[i].Size
		}
	}
	v.meter.begin("verify: tables", total)
	for i := range files {
		if !isTable(files[i].Path) {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			f, err := os.Open(filepath.Join(chaindataOf(v.datadir), filepath.FromSlash(files[i].Path)))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := chaindata.CheckTable(f, files[i].Size); err != nil {
				return v.damaged("table %s: %w", files[i].Path, err)
			}
			v.meter.done.Add(files[i].Size)
			return nil
		})
	}
	return group.Wait()
}

func (v *verifying) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, v.what, fmt.Errorf(format, args...))
}

// checkManifest compares the manifest with what the database says of itself.
func (v *verifying) checkManifest() error {
	dir := chaindataOf(v.datadir)
	d, err := chaindata.Describe(dir, "")
	if err != nil {
		return v.damaged("%w", err)
	}
	if d.State.Tables != v.now.Tables {
		return v.damaged("LevelDB's manifest names %d tables, the snapshot has %d", d.State.Tables, v.now.Tables)
	}
	at, _, err := positionOf(d, dir)
	if err != nil {
		return v.damaged("%w", err)
	}
	m := v.snap.Manifest
	if at.Cluster != m.Cluster || at.Timeline != m.Timeline || at.Sequence != m.Sequence {
		return v.damaged("the database stands at %v, the manifest says %v", at, m.Position())
	}
	if hash, root := fmt.Sprintf("0x%x", d.Head.Hash), fmt.Sprintf("0x%x", d.Head.Root); hash != m.Head.Hash || root != m.Head.Root ||
		fmt.Sprintf("0x%x", d.Genesis) != m.Genesis {
		return v.damaged("head or genesis of the database are not the manifest's")
	}
	return nil
}

// walk looks for the whole state below a root. The database is opened to read only: LevelDB writes nothing then, and its
// sequence stays.
func (v *verifying) walk(ctx context.Context, root string, fraction float64) (counts statecheck.Counts, err error) {
	v.meter.begin("verify: state", 0)
	db, err := leveldb.OpenFile(chaindataOf(v.datadir), &opt.Options{
		ReadOnly: true, ErrorIfMissing: true, Strict: opt.StrictAll, OpenFilesCacheCapacity: 512, BlockCacheCapacity: 128 << 20,
		DisableSeeksCompaction: true,
	})
	if err != nil {
		return counts, v.damaged("LevelDB cannot open it: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	get := func(key []byte) ([]byte, error) {
		value, err := db.Get(key, nil)
		if errors.Is(err, leveldb.ErrNotFound) {
			return nil, nil
		}
		return value, err
	}
	var hash [32]byte
	if _, err := hex.Decode(hash[:], []byte(strings.TrimPrefix(root, "0x"))); err != nil {
		return counts, err
	}
	counts, err = statecheck.Walk(ctx, get, hash, statecheck.Options{
		Workers: v.opts.Parallel, Fraction: fraction, Seed: uint64(time.Now().UnixNano()),
		Progress: func(nodes uint64) { v.meter.done.Store(int64(nodes)) },
	})
	if errors.Is(err, statecheck.ErrState) {
		err = v.damaged("state of block %s: %w", root, err)
	}
	return counts, err
}

// replay lets the topic go on from the copy, and looks for the state of the head it came to.
func (v *verifying) replay(ctx context.Context) error {
	if v.opts.Replay == nil {
		return nil
	}
	v.meter.begin("verify: replay", 0)
	if err := v.opts.Replay(ctx, v.datadir); err != nil {
		return fmt.Errorf("%s: replaying the change log on it: %w", v.what, err)
	}
	dir := chaindataOf(v.datadir)
	d, err := chaindata.Describe(dir, "")
	if err != nil {
		return v.damaged("after replaying: %w", err)
	}
	at, _, err := positionOf(d, dir)
	if err != nil {
		return v.damaged("after replaying: %w", err)
	}
	if at.Timeline < v.snap.Timeline || at.Timeline == v.snap.Timeline && at.Sequence < v.snap.Sequence {
		return v.damaged("after replaying it stands at %v, before where it started", at)
	}
	v.now.Replayed = d.Head.Number
	_, err = v.walk(ctx, fmt.Sprintf("0x%x", d.Head.Root), min(replayedSample, v.opts.SampleFraction))
	return err
}

// failed takes the mark from a snapshot that turned out damaged.
func (v *verifying) failed(ctx context.Context, err error) error {
	if _, gone := readObject(ctx, v.opts.Store, v.keys.manifest(v.snap.ID), manifestLimit); errors.Is(gone, ErrNotFound) {
		return fmt.Errorf("%w: %s was pruned while it was verified", ErrNoSnapshot, v.snap.ID)
	}
	if !errors.Is(err, ErrCorrupt) || v.snap.Verified == nil {
		return err
	}
	v.opts.Logger.Error("a snapshot that was usable is damaged", "id", v.snap.ID, "cause", err)
	v.snap.Verified = nil
	return errors.Join(err, v.opts.Store.Delete(ctx, v.keys.verified(v.snap.ID)))
}

// publish writes the checksums that were found, then verified.json.
func (v *verifying) publish(ctx context.Context) error {
	if len(v.learnt) > 0 {
		lines := make([]objectSum, 0, len(v.learnt))
		for object, sum := range v.learnt {
			lines = append(lines, objectSum{object, sum})
		}
		slices.SortFunc(lines, func(a, b objectSum) int { return strings.Compare(a.Object, b.Object) })
		body, err := encodeLines(lines)
		if err != nil {
			return err
		}
		v.now.Sums = sumOf(body)
		if err := v.opts.Store.Put(ctx, v.keys.sums(v.snap.ID), newBody(body), int64(len(body))); err != nil {
			return err
		}
	}
	body, err := json.MarshalIndent(v.now, "", "  ")
	if err != nil {
		return err
	}
	body = append(body, '\n')
	if err := v.opts.Store.Put(ctx, v.keys.verified(v.snap.ID), newBody(body), int64(len(body))); err != nil {
		return err
	}
	v.snap.Verified = &v.now
	return nil
}

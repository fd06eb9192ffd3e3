package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// Snapshots of a whole volume (EBS, ZFS, LVM) hold a datadir as a power cut would leave it. Peek says what will be in one,
// Settle makes of one what Restore would have made, VerifyDatadir proves it.

// PeekOptions are those of Peek. Cluster and Datadir are needed.
type PeekOptions struct {
	Cluster string
	Datadir string // geth's --datadir, which may be in use
	Topic   Topic  // finds the Kafka offset of a master's position; nil: unknown
	Logger  *slog.Logger
}

// Peek tells position and head of a datadir that may be in use, without stopping or locking it: all up to there will be in a
// snapshot of its volume that is taken afterwards. Of Manifest, what is about files is empty. Errors: ErrUsage, ErrWrongCluster,
// chaindata's, and changelog's when Topic does not continue it.
func Peek(ctx context.Context, opts PeekOptions) (m *Manifest, err error) {
	if err := changelog.CheckCluster(opts.Cluster); err != nil || opts.Datadir == "" {
		return nil, fmt.Errorf("%w: a cluster and a --datadir are needed: %w", ErrUsage, err)
	}
	source, err := filepath.Abs(chaindataOf(opts.Datadir))
	if err != nil {
		return nil, err
	}
	stage, err := openStage(filepath.Join(filepath.Dir(source), stageName))
	if err != nil {
		return nil, fmt.Errorf("staging beside %s: %w", source, err)
	}
	defer func() { err = errors.Join(err, stage.remove()) }()
	marker, err := chaindata.ReadMarker(source)
	if err != nil && !errors.Is(err, chaindata.ErrNoMarker) {
		return nil, err
	}
	created := time.Now()
	dir := filepath.Join(stage.dir, "chaindata")
	if _, err := chaindata.Copy(ctx, source, dir, chaindata.CopyOptions{SkipAncient: true, Logger: logger(opts.Logger)}); err != nil {
		return nil, err
	}
	c := &creation{opts: CreateOptions{
		Cluster: opts.Cluster, Chaindata: source, Ancient: filepath.Join(source, "ancient"), Topic: opts.Topic, Logger: logger(opts.Logger),
	}}
	m, err = c.describe(ctx, dir, marker.IsSource(source))
	if err != nil {
		return nil, err
	}
	m.Created = created.UTC().Truncate(time.Millisecond)
	return m, nil
}

// settledName is the settled database before it gets its name, rawName the other one after it has lost it.
const (
	settledName = ".chaindata.settled"
	rawName     = ".chaindata.raw"
)

// Settle makes a copy of a datadir's volume fit to start a replica from: the journal ends with its last whole record, the marker
// says that it is a copy (by inode alone it could not be told from the master's own), and what masters and snapshots keep beside
// the database is gone. Tables become hard links and the freezer is moved, so it takes seconds. Nothing may use the
// datadir. Killed, it is gone on with by calling it again; done twice it changes nothing.
func Settle(ctx context.Context, datadir string, log *slog.Logger) error {
	target := chaindataOf(datadir)
	parent := filepath.Dir(target)
	settled, raw := filepath.Join(parent, settledName), filepath.Join(parent, rawName)
	if err := os.RemoveAll(raw); err != nil {
		return err
	}
	if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
		// Killed between the two renames below.
		if err := os.Rename(settled, target); err != nil {
			return fmt.Errorf("%w: there is no database in %s", chaindata.ErrNoDatabase, datadir)
		}
	}
	if _, err := os.Lstat(filepath.Join(settled, "ancient")); err == nil {
		// Killed after the freezer was moved: back with it, and all again.
		if err := os.Rename(filepath.Join(settled, "ancient"), filepath.Join(target, "ancient")); err != nil {
			return err
		}
	}
	partial, err := filepath.Glob(filepath.Join(parent, "."+settledName+".partial-*"))
	if err != nil {
		return err
	}
	for _, leftover := range append(partial, settled, filepath.Join(parent, stageName), filepath.Join(parent, "drover-journals")) {
		if err := os.RemoveAll(leftover); err != nil {
			return err
		}
	}
	if _, err := chaindata.Copy(ctx, target, settled, chaindata.CopyOptions{SkipAncient: true, Logger: logger(log)}); err != nil {
		return err
	}
	err = os.Rename(filepath.Join(target, "ancient"), filepath.Join(settled, "ancient"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, move := range [][2]string{{target, raw}, {settled, target}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			return err
		}
		if err := syncDir(parent); err != nil {
			return err
		}
	}
	return os.RemoveAll(raw)
}

// VerifyDatadirOptions are those of VerifyDatadir; Cluster and Datadir are needed. What is not explained here is as in VerifyOptions.
type VerifyDatadirOptions struct {
	Cluster string
	Datadir string // settled, and not in use
	What    string // is verified, for errors: "EBS snapshot snap-…"
	// AtLeast is where the database has to stand, or later.
	AtLeast        changelog.Position
	SampleFraction float64
	Replay         func(ctx context.Context, datadir string) error // changes the database
	Parallel       int
	Node           string
	DroverVersion  string
	Progress       func(Progress)
	Logger         *slog.Logger
}

// VerifyDatadir proves that a replica can be started from a datadir: every block of every table is what LevelDB wrote, the whole
// state of the head is there, and (with Replay) the topic goes on from it. There are no checksums to compare with: of the freezer
// only what geth reads as it opens is seen. The manifest it returns says where the database stood before Replay. ErrCorrupt.
func VerifyDatadir(ctx context.Context, opts VerifyDatadirOptions) (m Manifest, done Verification, err error) {
	o := VerifyOptions{
		Cluster: opts.Cluster, Store: noStore{}, WorkDir: opts.Datadir, SampleFraction: opts.SampleFraction, Replay: opts.Replay,
		Parallel: opts.Parallel, Node: opts.Node, DroverVersion: opts.DroverVersion, Progress: opts.Progress, Logger: opts.Logger,
	}
	if err := o.check(); err != nil {
		return m, done, err
	}
	v := &verifying{opts: o, snap: new(Snapshot), datadir: opts.Datadir, what: opts.What}
	v.now = Verification{Format: manifestFormat, Node: o.Node, DroverVersion: o.DroverVersion}
	v.meter = newMeter("verify: tables", o.Progress)
	defer v.meter.end()
	start := time.Now()
	if err := v.database(ctx, opts.AtLeast); err != nil {
		return m, done, err
	}
	v.now.At, v.now.Seconds = time.Now().UTC().Truncate(time.Millisecond), time.Since(start).Seconds()
	return v.snap.Manifest, v.now, nil
}

// noStore is where nothing is read from.
type noStore struct{ Store }

func (v *verifying) database(ctx context.Context, least changelog.Position) error {
	dir := chaindataOf(v.datadir)
	d, err := chaindata.Describe(dir, "")
	if err != nil {
		return v.damaged("%w", err)
	}
	at, role, err := positionOf(d, dir)
	if err != nil {
		return v.damaged("%w", err)
	}
	if at.Cluster != v.opts.Cluster {
		return fmt.Errorf("%w: %s: it is of cluster %q", ErrWrongCluster, v.what, at.Cluster)
	}
	if at.Timeline < least.Timeline || at.Timeline == least.Timeline && at.Sequence < least.Sequence {
		return v.damaged("the database stands at %v, it should be at %v or later", at, least)
	}
	v.snap.Manifest = Manifest{
		Cluster: at.Cluster, Timeline: at.Timeline, Sequence: at.Sequence, Offset: at.Offset, Role: role, DatabaseVersion: d.DatabaseVersion,
		Head: Head{
			Number: d.Head.Number, Time: d.Head.Time, Hash: fmt.Sprintf("0x%x", d.Head.Hash), Root: fmt.Sprintf("0x%x", d.Head.Root),
		},
		Genesis: fmt.Sprintf("0x%x", d.Genesis),
	}
	files, err := databaseFiles(dir)
	if err != nil {
		return err
	}
	for i := range files {
		v.now.Bytes += files[i].Size
	}
	v.now.Files = len(files)
	if err := v.checkTables(ctx, files); err != nil {
		return err
	}
	// Settled, it holds those of the manifest and no others.
	if d.State.Tables != v.now.Tables {
		return v.damaged("LevelDB's manifest names %d tables, there are %d", d.State.Tables, v.now.Tables)
	}
	counts, err := v.walk(ctx, v.snap.Head.Root, v.opts.SampleFraction)
	if err != nil {
		return err
	}
	v.now.TrieNodes, v.now.Accounts, v.now.Slots, v.now.Codes = counts.Nodes, counts.Accounts, counts.Slots, counts.Codes
	v.now.Sample = v.opts.SampleFraction
	return v.replay(ctx)
}

// databaseFiles are those of a chaindata directory without its freezer.
func databaseFiles(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return nil, err
		}
		files = append(files, File{Path: e.Name(), Size: fi.Size()})
	}
	return files, nil
}

package schedule

import (
	"context"
	"fmt"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
)

// StoreBackend is a Backend over a snapshot.Store.
type StoreBackend struct{ opts StoreOptions }

// NewStore checks the options; it does not look into the store.
func NewStore(opts StoreOptions) (*StoreBackend, error) {
	def(&opts.Keep, 3)
	if err := changelog.CheckCluster(opts.Cluster); err != nil {
		return nil, fmt.Errorf("%w: --cluster: %w", errUsage, err)
	}
	if opts.Store == nil {
		return nil, fmt.Errorf("%w: a --store is needed", errUsage)
	}
	if _, local := opts.Store.(*snapshot.DirStore); !local && opts.WorkDir == "" {
		return nil, fmt.Errorf("%w: a --work-dir is needed to verify snapshots, with room for the whole database", errUsage)
	}
	return &StoreBackend{opts}, nil
}

func (b *StoreBackend) String() string { return b.opts.Store.String() }

// List returns what is in the store; a damaged one as Broken.
func (b *StoreBackend) List(ctx context.Context) ([]Point, error) {
	all, err := snapshot.List(ctx, snapshot.ListOptions{Cluster: b.opts.Cluster, Store: b.opts.Store})
	points := make([]Point, 0, len(all))
	for _, s := range all {
		points = append(points, PointOf(s))
	}
	return points, err
}

// PointOf is a snapshot of a snapshot.Store as a Scheduler sees it.
func PointOf(s *snapshot.Snapshot) Point { return pointOf(&s.Manifest, s.Usable(), s.Broken) }

func pointOf(m *snapshot.Manifest, usable bool, broken error) Point {
	return Point{ID: m.ID, Position: m.Position(), Head: m.Head, Taken: m.Created, Usable: usable, Bytes: m.Files.Bytes, Broken: broken}
}

// Create calls snapshot.Create.
func (b *StoreBackend) Create(ctx context.Context, datadir string) (Made, error) {
	res, err := snapshot.Create(ctx, snapshot.CreateOptions{
		Cluster: b.opts.Cluster, Store: b.opts.Store, Datadir: datadir, Ancient: b.opts.Ancient, Topic: b.opts.Topic,
		Node: b.opts.Node, GethVersion: b.opts.GethVersion, DroverVersion: b.opts.DroverVersion, Compression: b.opts.Compression,
		Parallel: b.opts.Parallel, NoHardLinks: b.opts.NoHardLinks, Progress: b.opts.Scheduler.Show, Logger: b.opts.Logger,
	})
	if err != nil {
		return Made{}, err
	}
	return Made{Point: pointOf(res.Manifest, false, nil), Moved: res.Moved}, nil
}

// Verify calls snapshot.Verify.
func (b *StoreBackend) Verify(ctx context.Context, id string) error {
	_, err := snapshot.Verify(ctx, snapshot.VerifyOptions{
		Cluster: b.opts.Cluster, Store: b.opts.Store, Select: snapshot.Select{ID: id}, WorkDir: b.opts.WorkDir,
		SampleFraction: b.opts.SampleFraction, Replay: b.opts.Replay, Parallel: b.opts.Parallel, Node: b.opts.Node,
		DroverVersion: b.opts.DroverVersion, Progress: b.opts.Scheduler.Show, Logger: b.opts.Logger,
	})
	return err
}

// Prune calls snapshot.Prune, and removes.
func (b *StoreBackend) Prune(ctx context.Context, first int64) (Pruned, error) {
	res, err := snapshot.Prune(ctx, snapshot.PruneOptions{
		Cluster: b.opts.Cluster, Store: b.opts.Store, Keep: b.opts.Keep, Daily: b.opts.Daily, Weekly: b.opts.Weekly,
		Monthly: b.opts.Monthly, FirstRetained: first, Margin: b.opts.Margin, Confirm: true, DropBroken: b.opts.DropBroken,
		OrphanAge: b.opts.OrphanAge, Logger: b.opts.Logger,
	})
	p := Pruned{Bytes: res.Bytes}
	for _, d := range res.Decisions {
		if d.Remove {
			p.Snapshots++
		}
	}
	if err != nil {
		p = Pruned{} // it may have stopped anywhere
	}
	return p, err
}

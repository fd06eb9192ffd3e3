package ebs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

// ClusterOptions are those of NewCluster. Backend is needed; Restore's Instance and Zone to verify and restore; Mount to verify.
type ClusterOptions struct {
	Backend *Backend
	// Restore says what volumes are made of snapshots. Snapshot and Mount are not looked at.
	Restore RestoreOptions
	// Mount is the directory at which a volume is mounted while it is verified. It is Verify's alone.
	Mount string
	// Topic finds the Kafka offset of a master's position; nil: it is unknown.
	Topic snapshot.Topic

	// FastRestore names availability zones in which the newest verified snapshot has fast restore; those before it lose it there.
	FastRestore []string

	// Of Verify, as in snapshot.VerifyOptions.
	SampleFraction float64
	Replay         func(ctx context.Context, datadir string) error
	Parallel       int
	Node           string
	DroverVersion  string

	// Of Prune, as in snapshot.PruneOptions. Keep: default 3.
	Keep, Daily, Weekly, Monthly int
	Margin                       int64

	Progress func(snapshot.Progress)
}

// Cluster is what the command line and a schedule do with a cluster's EBS snapshots. It is a schedule.Backend.
type Cluster struct {
	opts ClusterOptions
	*Backend
}

var _ schedule.Backend = (*Cluster)(nil)

// NewCluster checks the options. Errors: snapshot.ErrUsage.
func NewCluster(opts ClusterOptions) (*Cluster, error) {
	if opts.Backend == nil {
		return nil, fmt.Errorf("%w: EBS snapshots need a backend", snapshot.ErrUsage)
	}
	if opts.Keep == 0 {
		opts.Keep = 3
	}
	if opts.Progress == nil {
		opts.Progress = func(snapshot.Progress) {}
	}
	return &Cluster{opts: opts, Backend: opts.Backend}, nil
}

// List returns the cluster's snapshots, the oldest first.
func (c *Cluster) List(ctx context.Context) ([]schedule.Point, error) {
	all, err := c.Backend.List(ctx)
	points := make([]schedule.Point, 0, len(all))
	for _, s := range all {
		points = append(points, s.point())
	}
	return points, err
}

func (s Snapshot) usable() bool { return s.Complete && !s.Usable.IsZero() }

func (s Snapshot) point() schedule.Point {
	return schedule.Point{ID: s.ID, Position: s.Position, Head: s.Head, Taken: s.Taken, Usable: s.usable()}
}

// Snapshots are those of List as the rest of Drover shows them. Of Manifest, what is about files is empty; Files.Bytes is the
// volume's size.
func (c *Cluster) Snapshots(ctx context.Context) ([]*snapshot.Snapshot, error) {
	all, err := c.Backend.List(ctx)
	shown := make([]*snapshot.Snapshot, 0, len(all))
	for _, s := range all {
		out := &snapshot.Snapshot{Manifest: snapshot.Manifest{
			ID: s.ID, Cluster: s.Position.Cluster, Timeline: s.Position.Timeline, Sequence: s.Position.Sequence, Offset: s.Position.Offset,
			Head: s.Head, Created: s.Taken,
		}}
		out.Files.Bytes = int64(s.SizeGiB) << 30
		if s.usable() {
			out.Verified = &snapshot.Verification{At: s.Usable}
		}
		shown = append(shown, out)
	}
	return shown, err
}

// Create takes a snapshot of the volume that a datadir is on, which may be in use, and returns when EBS has all of it.
func (c *Cluster) Create(ctx context.Context, datadir string) (schedule.Made, error) {
	m, err := snapshot.Peek(ctx, snapshot.PeekOptions{Cluster: c.Backend.opts.Cluster, Datadir: datadir, Topic: c.opts.Topic, Logger: c.Backend.opts.Logger})
	if err != nil {
		return schedule.Made{}, err
	}
	start := time.Now()
	s, err := c.Backend.Create(ctx, CreateOptions{
		Datadir: datadir, Position: m.Position(), Head: m.Head, Taken: m.Created,
		Progress: func(percent int) {
			c.opts.Progress(snapshot.Progress{Phase: "EBS copies (%)", Done: int64(percent), Total: 100, Elapsed: time.Since(start)})
		},
	})
	if err != nil {
		return schedule.Made{}, err
	}
	return schedule.Made{Point: s.point()}, nil
}

// Find returns the snapshot that is meant. Errors: snapshot.ErrNoSnapshot, snapshot.ErrUnverified.
func (c *Cluster) Find(ctx context.Context, sel snapshot.Select) (Snapshot, error) {
	all, err := c.Backend.List(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	for _, s := range slices.Backward(all) {
		switch {
		case sel.ID != "" && s.ID != sel.ID:
		case sel.ID != "" && !s.usable() && !sel.Unverified:
			return Snapshot{}, fmt.Errorf("%w: %s: verify it first (drover snapshot verify)", snapshot.ErrUnverified, s.ID)
		case sel.ID == "" && !sel.Before.IsZero() && s.Taken.After(sel.Before), sel.ID == "" && sel.Block != nil && s.Head.Number > *sel.Block:
		case s.usable() || sel.Unverified:
			return s, nil
		}
	}
	return Snapshot{}, fmt.Errorf("%w: none of %d EBS snapshots of cluster %s is the one that was asked for, and usable: take one, or verify one",
		snapshot.ErrNoSnapshot, len(all), c.Backend.opts.Cluster)
}

// Restored is a volume from which a replica can be started.
type Restored struct {
	Volume
	From    Snapshot
	Datadir string // geth's --datadir on it
}

// Restore brings a snapshot back as a volume mounted at an empty directory, settled (snapshot.Settle). What it made is removed when
// it fails. Errors: snapshot.ErrNotEmpty, those of Find, of EC2, and of Settle.
func (c *Cluster) Restore(ctx context.Context, sel snapshot.Select, mount string) (Restored, error) {
	entries, err := os.ReadDir(mount)
	switch {
	case mount == "":
		return Restored{}, fmt.Errorf("%w: a directory is needed to mount the volume at", snapshot.ErrUsage)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Restored{}, err
	case len(entries) > 0:
		return Restored{}, fmt.Errorf("%w: %s holds %s and more: name an empty directory to mount the volume at", snapshot.ErrNotEmpty, mount, entries[0].Name())
	}
	return c.mount(ctx, sel, mount, "")
}

func (c *Cluster) mount(ctx context.Context, sel snapshot.Select, mount, verify string) (_ Restored, err error) {
	if c.opts.Restore.Instance == "" || c.opts.Restore.Zone == "" {
		return Restored{}, fmt.Errorf("%w: to attach a volume, this host's instance and availability zone are needed", snapshot.ErrUsage)
	}
	s, err := c.Find(ctx, sel)
	if err != nil {
		return Restored{}, err
	}
	if s, err = c.waitComplete(ctx, s.ID, nil); err != nil {
		return Restored{}, err
	}
	opts := c.opts.Restore
	opts.Snapshot, opts.Mount, opts.verify = s.ID, mount, verify
	c.opts.Progress(snapshot.Progress{Phase: "attach a volume"})
	v, err := c.Backend.Restore(ctx, opts)
	if err != nil {
		return Restored{}, err
	}
	out := Restored{Volume: v, From: s, Datadir: filepath.Join(mount, s.Datadir)}
	if err := snapshot.Settle(ctx, out.Datadir, c.Backend.opts.Logger); err != nil {
		return Restored{}, errors.Join(fmt.Errorf("EBS snapshot %s: %w", s.ID, err), c.drop(ctx, v))
	}
	return out, nil
}

// drop releases a volume also when ctx has ended.
func (c *Cluster) drop(ctx context.Context, v Volume) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	if err := c.Release(ctx, v); err != nil {
		return fmt.Errorf("volume %s is left over and paid for: %w", v.ID, err)
	}
	return nil
}

// Verify makes a volume of a snapshot, mounts it, proves the database on it (snapshot.VerifyDatadir), marks the snapshot as usable,
// and removes the volume. One found damaged is not usable from then on. A volume that a killed call left is removed first.
func (c *Cluster) Verify(ctx context.Context, id string) (err error) {
	if c.opts.Mount == "" {
		return fmt.Errorf("%w: a --work-dir is needed to mount the volume at while it is verified", snapshot.ErrUsage)
	}
	mount, err := filepath.Abs(c.opts.Mount)
	if err != nil {
		return err
	}
	unlock, err := lockMount(mount)
	if err != nil {
		return err
	}
	defer unlock()
	mark := c.opts.Restore.Instance + " " + mount
	if err := c.releaseVerified(ctx, mark, mount); err != nil {
		return err
	}
	r, err := c.mount(ctx, snapshot.Select{ID: id, Unverified: true}, mount, mark)
	if err != nil {
		return c.failed(ctx, id, err)
	}
	defer func() { err = errors.Join(err, c.drop(ctx, r.Volume)) }()
	_, done, err := snapshot.VerifyDatadir(ctx, snapshot.VerifyDatadirOptions{
		Cluster: c.Backend.opts.Cluster, Datadir: r.Datadir, What: "EBS snapshot " + r.From.ID, AtLeast: r.From.Position,
		SampleFraction: c.opts.SampleFraction, Replay: c.opts.Replay, Parallel: c.opts.Parallel, Node: c.opts.Node,
		DroverVersion: c.opts.DroverVersion, Progress: c.opts.Progress, Logger: c.Backend.opts.Logger,
	})
	if err != nil {
		return c.failed(ctx, r.From.ID, err)
	}
	if err := c.MarkUsable(ctx, r.From.ID, done.At); err != nil {
		return err
	}
	return c.moveFastRestore(ctx, r.From)
}

// moveFastRestore enables fast restore of a snapshot that was verified, and disables it for older ones: it is paid for by the hour.
func (c *Cluster) moveFastRestore(ctx context.Context, to Snapshot) error {
	if len(c.opts.FastRestore) == 0 {
		return nil
	}
	all, err := c.Backend.List(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(s Snapshot) bool { return s.usable() && s.Taken.After(to.Taken) }) {
		return nil // an old one was verified anew
	}
	if err := c.EnableFastRestore(ctx, to.ID, c.opts.FastRestore...); err != nil {
		return err
	}
	for _, s := range all {
		if s.usable() && s.ID != to.ID {
			if err := c.DisableFastRestore(ctx, s.ID, c.opts.FastRestore...); err != nil {
				return err
			}
		}
	}
	return nil
}

// failed takes the mark from a snapshot that is damaged.
func (c *Cluster) failed(ctx context.Context, id string, err error) error {
	if !errors.Is(err, snapshot.ErrCorrupt) {
		return err
	}
	return errors.Join(err, c.MarkUnusable(ctx, id))
}

// lockMount keeps two verifications apart: what is at the mount point is then nobody's but a dead one's.
func lockMount(mount string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(mount), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(mount+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: another verification uses %s", snapshot.ErrBusy, mount)
	}
	return func() { f.Close() }, nil
}

// releaseVerified removes the volumes that killed verifications at this mount point left.
func (c *Cluster) releaseVerified(ctx context.Context, mark, mount string) error {
	left, err := c.volumes(ctx,
		types.Filter{Name: aws.String("tag:" + tagCluster), Values: []string{c.Backend.opts.Cluster}},
		types.Filter{Name: aws.String("tag:" + tagVerify), Values: []string{mark}})
	if err != nil {
		return err
	}
	for _, v := range left {
		c.Backend.opts.Logger.Warn("a volume that a killed verification left is removed", "volume", aws.ToString(v.VolumeId))
		if err := c.Release(ctx, Volume{ID: aws.ToString(v.VolumeId), Mount: mount}); err != nil {
			return err
		}
	}
	return nil
}

// Decide says of each snapshot what Prune would do, the newest first. first is the first offset that the topic retains.
func (c *Cluster) Decide(ctx context.Context, first int64) ([]snapshot.Decision, error) {
	all, err := c.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	return snapshot.Decide(all, snapshot.PruneOptions{
		Keep: c.opts.Keep, Daily: c.opts.Daily, Weekly: c.opts.Weekly, Monthly: c.opts.Monthly, FirstRetained: first, Margin: c.opts.Margin,
	})
}

// Prune removes snapshots that nobody needs, the oldest first.
func (c *Cluster) Prune(ctx context.Context, first int64) (done schedule.Pruned, err error) {
	decisions, err := c.Decide(ctx, first)
	if err != nil {
		return done, err
	}
	for _, d := range slices.Backward(decisions) {
		if !d.Remove {
			continue
		}
		if err := c.Delete(ctx, d.Snapshot.ID); err != nil {
			return done, err
		}
		done.Snapshots++
	}
	return done, nil
}

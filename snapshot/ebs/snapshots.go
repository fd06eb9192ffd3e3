package ebs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
)

// Tags of a snapshot. Those of position and head say what the database held before the snapshot was begun: the database
// in it stands there or later, and its own position is what counts.
const (
	tagFormat   = "drover:format"
	tagCluster  = "drover:cluster"
	tagTimeline = "drover:timeline"
	tagSequence = "drover:sequence"
	tagOffset   = "drover:offset"
	tagBlock    = "drover:block"
	tagHash     = "drover:block-hash"
	tagTaken    = "drover:taken"   // RFC 3339: when the position was read
	tagUsable   = "drover:usable"  // RFC 3339: when it was verified
	tagDatadir  = "drover:datadir" // where the datadir is, below the root of the volume's file system
)

const tagsFormat = 1

// takenLayout is RFC 3339 with milliseconds: two snapshots may be taken in one second.
const takenLayout = "2006-01-02T15:04:05.000Z07:00"

// Snapshot is an EBS snapshot of a cluster's datadir.
type Snapshot struct {
	ID       string // snap-…
	Position changelog.Position
	Head     snapshot.Head // Number and Hash
	Taken    time.Time
	Usable   time.Time // when it was verified; zero = not yet
	SizeGiB  int32     // of the volume
	Complete bool      // all of it is in S3; before that it can be used already, but not yet relied on
	Datadir  string    // below the root of the volume's file system; "" = the root itself
}

// CreateOptions say what is taken.
type CreateOptions struct {
	// Volume is the id of the volume; "" = the one that holds Datadir.
	Volume string
	// Datadir is synced to its volume before the snapshot is begun.
	Datadir string
	// Position and Head of the database, read before Create is called.
	Position changelog.Position
	Head     snapshot.Head
	// Taken is when they were read; default now.
	Taken time.Time
	// Progress is told how much is copied, in percent; may be nil.
	Progress func(percent int)
}

// Create takes a snapshot of a datadir that may be in use, and returns when it is complete. The point in time is when EC2
// has answered: what was written to the volume by then is in it, as after a power cut, which LevelDB recovers from. When
// ctx ends before it is complete, the snapshot goes on by itself.
func (b *Backend) Create(ctx context.Context, opts CreateOptions) (Snapshot, error) {
	if opts.Position.Cluster != b.opts.Cluster {
		return Snapshot{}, fmt.Errorf("%w: the datadir is of cluster %q, the snapshots of %q", snapshot.ErrWrongCluster, opts.Position.Cluster, b.opts.Cluster)
	}
	if opts.Taken.IsZero() {
		opts.Taken = time.Now()
	}
	if opts.Volume == "" {
		var err error
		if opts.Volume, err = b.opts.System.VolumeOf(opts.Datadir); err != nil {
			return Snapshot{}, err
		}
	}
	below, err := b.opts.System.Below(opts.Datadir)
	if err != nil {
		return Snapshot{}, err
	}
	if err := b.opts.System.Sync(opts.Datadir); err != nil {
		return Snapshot{}, fmt.Errorf("sync %s: %w", opts.Datadir, err)
	}
	out, err := b.client.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{
		VolumeId:    &opts.Volume,
		Description: aws.String(fmt.Sprintf("Drover: cluster %s at block %d", b.opts.Cluster, opts.Head.Number)),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot, Tags: tags(map[string]string{
			tagFormat:   strconv.Itoa(tagsFormat),
			tagCluster:  b.opts.Cluster,
			tagTimeline: strconv.FormatUint(opts.Position.Timeline, 10),
			tagSequence: strconv.FormatUint(opts.Position.Sequence, 10),
			tagOffset:   strconv.FormatInt(opts.Position.Offset, 10),
			tagBlock:    strconv.FormatUint(opts.Head.Number, 10),
			tagHash:     opts.Head.Hash,
			tagTaken:    opts.Taken.UTC().Format(takenLayout),
			tagDatadir:  below,
		})}},
	})
	if err != nil {
		return Snapshot{}, b.explain(ctx, "take a snapshot of "+opts.Volume, err)
	}
	id := aws.ToString(out.SnapshotId)
	b.opts.Logger.Info("EBS snapshot begun", "snapshot", id, "volume", opts.Volume, "block", opts.Head.Number)
	return b.waitComplete(ctx, id, opts.Progress)
}

func (b *Backend) waitComplete(ctx context.Context, id string, progress func(percent int)) (found Snapshot, err error) {
	err = b.wait(ctx, id+" is complete", func() (bool, error) {
		raw, err := b.describe(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		if err != nil || len(raw) == 0 {
			return false, err
		}
		if raw[0].State == types.SnapshotStateError {
			return false, fmt.Errorf("%s: snapshot %s failed: %s: delete it and take another", b, id, aws.ToString(raw[0].StateMessage))
		}
		if percent, err := strconv.Atoi(strings.TrimSuffix(aws.ToString(raw[0].Progress), "%")); err == nil && progress != nil {
			progress(percent)
		}
		found, err = b.parse(raw[0])
		return found.Complete, err
	})
	return found, err
}

// List returns the cluster's snapshots, the oldest first. One whose tags are not what Drover writes is left out with a
// warning.
func (b *Backend) List(ctx context.Context) ([]Snapshot, error) {
	raw, err := b.describe(ctx, &ec2.DescribeSnapshotsInput{
		OwnerIds: []string{"self"},
		Filters:  []types.Filter{{Name: aws.String("tag:" + tagCluster), Values: []string{b.opts.Cluster}}},
	})
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, r := range raw {
		s, err := b.parse(r)
		if err != nil {
			b.opts.Logger.Warn("an EBS snapshot is left out", "error", err)
			continue
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, c Snapshot) int {
		return cmp.Or(a.Taken.Compare(c.Taken), cmp.Compare(a.Position.Timeline, c.Position.Timeline), cmp.Compare(a.Position.Sequence, c.Position.Sequence))
	})
	return list, nil
}

// Newest is the newest complete and usable snapshot. Errors: snapshot.ErrNoSnapshot.
func (b *Backend) Newest(ctx context.Context) (Snapshot, error) {
	all, err := b.List(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	for _, s := range slices.Backward(all) {
		if s.Complete && !s.Usable.IsZero() {
			return s, nil
		}
	}
	return Snapshot{}, fmt.Errorf("%w: of %d EBS snapshots of cluster %s none is complete and verified: take one, or verify one", snapshot.ErrNoSnapshot, len(all), b.opts.Cluster)
}

// MarkUsable notes on a snapshot that it was verified.
func (b *Backend) MarkUsable(ctx context.Context, id string, at time.Time) error {
	_, err := b.client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: tags(map[string]string{tagUsable: at.UTC().Format(time.RFC3339)})})
	if err != nil {
		return b.explain(ctx, "mark "+id+" as usable", err)
	}
	return nil
}

// MarkUnusable takes MarkUsable's mark from a snapshot that turned out damaged.
func (b *Backend) MarkUnusable(ctx context.Context, id string) error {
	_, err := b.client.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String(tagUsable)}}})
	if err != nil {
		return b.explain(ctx, "mark "+id+" as not usable", err)
	}
	return nil
}

// Delete removes snapshots of this cluster. An absent one is no error; one of another cluster is.
func (b *Backend) Delete(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		raw, err := b.describe(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		if errors.Is(err, snapshot.ErrNoSnapshot) {
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range raw {
			if cluster := tag(r.Tags, tagCluster); cluster != b.opts.Cluster {
				return fmt.Errorf("%w: %s is of cluster %q", snapshot.ErrWrongCluster, id, cluster)
			}
		}
		if _, err := b.client.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id}); err != nil {
			if err := b.explain(ctx, "delete "+id, err); !errors.Is(err, snapshot.ErrNoSnapshot) {
				return err
			}
		}
		b.opts.Logger.Info("EBS snapshot deleted", "snapshot", id)
	}
	return nil
}

// EnableFastRestore has EBS prepare a snapshot in these availability zones, so that a volume made from it is at full speed
// at once. It takes about an hour for each TiB and is paid for by the hour and zone until DisableFastRestore.
func (b *Backend) EnableFastRestore(ctx context.Context, id string, zones ...string) error {
	out, err := b.client.EnableFastSnapshotRestores(ctx, &ec2.EnableFastSnapshotRestoresInput{SourceSnapshotIds: []string{id}, AvailabilityZones: zones})
	if err != nil {
		return b.explain(ctx, "enable fast restore of "+id, err)
	}
	for _, u := range out.Unsuccessful {
		for _, e := range u.FastSnapshotRestoreStateErrors {
			return fmt.Errorf("%s: enable fast restore of %s in %s: %s: %s", b, id, aws.ToString(e.AvailabilityZone), aws.ToString(e.Error.Code), aws.ToString(e.Error.Message))
		}
	}
	return nil
}

// DisableFastRestore ends what EnableFastRestore began.
func (b *Backend) DisableFastRestore(ctx context.Context, id string, zones ...string) error {
	_, err := b.client.DisableFastSnapshotRestores(ctx, &ec2.DisableFastSnapshotRestoresInput{SourceSnapshotIds: []string{id}, AvailabilityZones: zones})
	if err != nil {
		return b.explain(ctx, "disable fast restore of "+id, err)
	}
	return nil
}

func (b *Backend) describe(ctx context.Context, in *ec2.DescribeSnapshotsInput) ([]types.Snapshot, error) {
	var all []types.Snapshot
	pages := ec2.NewDescribeSnapshotsPaginator(b.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.explain(ctx, "list snapshots", err)
		}
		all = append(all, page.Snapshots...)
	}
	return all, nil
}

// parse reads the tags. Errors: snapshot.ErrForeign, snapshot.ErrFutureFormat.
func (b *Backend) parse(raw types.Snapshot) (Snapshot, error) {
	s := Snapshot{
		ID:       aws.ToString(raw.SnapshotId),
		Head:     snapshot.Head{Hash: tag(raw.Tags, tagHash)},
		SizeGiB:  aws.ToInt32(raw.VolumeSize),
		Complete: raw.State == types.SnapshotStateCompleted,
		Datadir:  tag(raw.Tags, tagDatadir),
	}
	if s.Datadir != "" && !filepath.IsLocal(s.Datadir) {
		return s, fmt.Errorf("%w: the tags of %s: its datadir %.100q leads out of the volume", snapshot.ErrForeign, s.ID, s.Datadir)
	}
	s.Position.Cluster = tag(raw.Tags, tagCluster)
	var format int
	var errs [7]error
	format, errs[0] = strconv.Atoi(tag(raw.Tags, tagFormat))
	if errs[0] == nil && format > tagsFormat {
		return s, fmt.Errorf("%w: %s has tags of format %d, this release reads up to %d", snapshot.ErrFutureFormat, s.ID, format, tagsFormat)
	}
	s.Position.Timeline, errs[1] = strconv.ParseUint(tag(raw.Tags, tagTimeline), 10, 64)
	s.Position.Sequence, errs[2] = strconv.ParseUint(tag(raw.Tags, tagSequence), 10, 64)
	s.Position.Offset, errs[3] = strconv.ParseInt(tag(raw.Tags, tagOffset), 10, 64)
	s.Head.Number, errs[4] = strconv.ParseUint(tag(raw.Tags, tagBlock), 10, 64)
	s.Taken, errs[5] = time.Parse(time.RFC3339, tag(raw.Tags, tagTaken))
	if text := tag(raw.Tags, tagUsable); text != "" {
		s.Usable, errs[6] = time.Parse(time.RFC3339, text)
	}
	if err := errors.Join(errs[:]...); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return s, fmt.Errorf("%w: the tags of %s: %s", snapshot.ErrForeign, s.ID, first)
	}
	return s, nil
}

func tags(values map[string]string) []types.Tag {
	var list []types.Tag
	for key, value := range values {
		list = append(list, types.Tag{Key: &key, Value: &value})
	}
	return list
}

func tag(list []types.Tag, key string) string {
	for _, t := range list {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

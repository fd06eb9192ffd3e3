package ebs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/chaindata/statecheck/statetest"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

// disks is a host whose volumes hold data, which the emulator's do not: what a snapshot holds is what the volume held when it was
// synced last, and mounting a volume copies what its snapshot holds.
type disks struct {
	*host
	t      *testing.T
	client *ec2.Client
	root   string            // of the datadir's volume
	images string            // directory of copies
	synced string            // the last one
	held   map[string]string // copy by snapshot
}

func (d *disks) Below(dir string) (string, error) { return filepath.Rel(d.root, dir) }

func (d *disks) Sync(string) error {
	for try := 1; ; try++ {
		to, err := os.MkdirTemp(d.images, "image-")
		if err != nil {
			return err
		}
		d.synced = to
		// LevelDB may still remove what it merged, and cp takes its time.
		if err = copyTree(d.root+"/.", to); err == nil || try == 50 {
			return err
		}
	}
}

func (d *disks) Mount(device, dir string) error {
	volume := filepath.Base(device)
	out, err := d.client.DescribeVolumes(d.t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{volume}})
	if err != nil {
		return err
	}
	image, ok := d.held[aws.ToString(out.Volumes[0].SnapshotId)]
	if !ok {
		return fmt.Errorf("%s: nobody knows what is on it", volume)
	}
	if err := errors.Join(d.host.Mount(device, dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	return copyTree(image+"/.", dir)
}

func (d *disks) Unmount(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return d.host.Unmount(dir)
}

func copyTree(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// topic is a change log in which each sequence has a frame of its own.
type topic struct{ first int64 }

func (t *topic) FindSequence(_ context.Context, _, sequence uint64) (int64, error) {
	return int64(sequence) + 1, nil
}
func (t *topic) Bounds(context.Context) (first, next int64, err error) { return t.first, 1 << 40, nil }
func (t *topic) Join(_ context.Context, at changelog.Position) (int64, error) {
	return int64(at.Sequence) + 1, nil
}
func (t *topic) TimeAt(context.Context, int64) (time.Time, error) { return time.Now(), nil }
func (t *topic) Retention(context.Context) (changelog.Retention, error) {
	return changelog.Retention{Time: time.Hour}, nil
}
func (t *topic) SetRetention(context.Context, time.Duration) error { return nil }

// cluster is a master's datadir on an emulated volume, with a chain that grows.
type cluster struct {
	*bench
	*Cluster
	disks   *disks
	datadir string
	db      *leveldb.DB
	blocks  uint64
	topic   *topic
	mount   string
	replays []string // datadirs that were replayed on
}

func newClusterTest(t *testing.T) *cluster {
	t.Helper()
	b := newBench(t)
	c := &cluster{bench: b, topic: &topic{}, mount: filepath.Join(t.TempDir(), "verify")}
	root := t.TempDir()
	c.datadir = filepath.Join(root, "data", "geth-1")
	c.disks = &disks{host: b.host, t: t, client: b.backend.client, root: root, images: t.TempDir(), held: make(map[string]string)}
	backend, err := New(b.ctx, Options{
		Cluster: "main", Region: "us-east-1", Endpoint: b.url, System: c.disks, Poll: 10 * time.Millisecond,
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Cluster, err = NewCluster(ClusterOptions{
		Backend: backend, Restore: RestoreOptions{Instance: b.instance, Zone: zone}, Mount: c.mount, Topic: c.topic, Keep: 2,
		Replay: func(_ context.Context, datadir string) error { c.replays = append(c.replays, datadir); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.datadir, "geth", "chaindata")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if c.db, err = leveldb.OpenFile(dir, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.db.Close() })
	if err := chaindata.WriteMarker(dir, chaindata.Marker{Cluster: "main", Timeline: 3, Role: chaindata.RoleSource}); err != nil {
		t.Fatal(err)
	}
	return c
}

// write leaves the last block in the journal, and the rest in tables that nobody merges any more.
func (c *cluster) write(blocks int) {
	c.Helper()
	for n := range blocks {
		if n == blocks-1 {
			if err := c.db.CompactRange(util.Range{}); err != nil {
				c.Fatal(err)
			}
		}
		ops, _ := statetest.Block(c.blocks)
		batch := new(leveldb.Batch)
		for _, op := range ops {
			if op.Value == nil {
				batch.Delete(op.Key)
			} else {
				batch.Put(op.Key, op.Value)
			}
		}
		if err := c.db.Write(batch, nil); err != nil {
			c.Fatal(err)
		}
		c.blocks++
	}
}

// Create notes what the snapshot holds, which EC2 would.
func (c *cluster) Create(ctx context.Context, datadir string) (schedule.Made, error) {
	made, err := c.Cluster.Create(ctx, datadir)
	if err == nil {
		c.disks.held[made.ID] = c.disks.synced
	}
	return made, err
}

func (c *cluster) create() schedule.Made {
	c.Helper()
	made, err := c.Create(c.ctx, c.datadir)
	if err != nil {
		c.Fatal(err)
	}
	return made
}

func (c *cluster) verify(id string) {
	c.Helper()
	if err := c.Verify(c.ctx, id); err != nil {
		c.Fatal(err)
	}
	if left := c.bench.volumes(); len(left) != 0 || len(c.host.mounted) != 0 {
		c.Fatalf("left over: %v, mounted %v", left, c.host.mounted)
	}
}

func (c *cluster) usable() (ids []string) {
	c.Helper()
	points, err := c.List(c.ctx)
	if err != nil {
		c.Fatal(err)
	}
	for _, p := range points {
		if p.Usable {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

func TestAClusterLivesOffItsEBSSnapshots(t *testing.T) {
	c := newClusterTest(t)
	c.write(40)
	first := c.create()
	if first.Usable || first.Head.Number != 39 || first.Position.Timeline != 3 || first.Position.Offset != int64(first.Position.Sequence) {
		t.Errorf("made %+v", first)
	}
	to := filepath.Join(t.TempDir(), "mnt")
	if _, err := c.Cluster.Restore(c.ctx, snapshot.Select{}, to); !errors.Is(err, snapshot.ErrNoSnapshot) {
		t.Errorf("before it was verified: %v", err)
	}
	c.verify(first.ID)
	if ids := c.usable(); len(ids) != 1 || ids[0] != first.ID || len(c.replays) != 1 || c.replays[0] != filepath.Join(c.mount, "data", "geth-1") {
		t.Fatalf("usable %v, replayed on %v", ids, c.replays)
	}
	c.write(40)
	second := c.create()

	r, err := c.Cluster.Restore(c.ctx, snapshot.Select{}, to)
	if err != nil {
		t.Fatal(err)
	}
	d, err := chaindata.Describe(filepath.Join(r.Datadir, "geth", "chaindata"), "")
	if err != nil || d.Head.Number != 39 || d.Marker == nil || d.Marker.Role != chaindata.RoleCopy || d.Marker.Sequence != first.Position.Sequence {
		t.Errorf("restored %+v, marker %+v, %v", d.Head, d.Marker, err)
	}
	if _, err := c.Cluster.Restore(c.ctx, snapshot.Select{}, to); !errors.Is(err, snapshot.ErrNotEmpty) {
		t.Errorf("to where something is: %v", err)
	}
	if err := c.Release(c.ctx, r.Volume); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cluster.Restore(c.ctx, snapshot.Select{ID: second.ID}, to); !errors.Is(err, snapshot.ErrUnverified) {
		t.Errorf("one that was not verified: %v", err)
	}
	c.verify(second.ID)
	c.write(1)
	third := c.create()
	c.verify(third.ID)
	block := uint64(50)
	for name, sel := range map[string]snapshot.Select{"block": {Block: &block}, "time": {Before: second.Taken.Add(-time.Millisecond)}, "ID": {ID: first.ID}} {
		if s, err := c.Find(c.ctx, sel); err != nil || s.ID != first.ID {
			t.Errorf("by %s: %+v, %v", name, s, err)
		}
	}
	c.topic.first = third.Position.Offset + 2
	if _, err := c.Prune(c.ctx, c.topic.first); !errors.Is(err, snapshot.ErrHeadroom) {
		t.Errorf("without headroom: %v", err)
	}
	c.topic.first = 0
	if done, err := c.Prune(c.ctx, 0); err != nil || done.Snapshots != 1 || strings.Join(c.usable(), " ") != second.ID+" "+third.ID {
		t.Errorf("pruned %+v, left %v, %v", done, c.usable(), err)
	}
}

func TestADamagedEBSSnapshotLosesItsMark(t *testing.T) {
	c := newClusterTest(t)
	c.write(40)
	made := c.create()
	c.verify(made.ID)
	made = c.create()
	c.verify(made.ID)
	tables, err := filepath.Glob(filepath.Join(c.disks.held[made.ID], "data", "geth-1", "geth", "chaindata", "*.ldb"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	b, err := os.ReadFile(tables[len(tables)-1])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(tables[len(tables)-1], b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(c.ctx, made.ID); !errors.Is(err, snapshot.ErrCorrupt) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if ids := c.usable(); len(ids) != 1 || ids[0] == made.ID {
		t.Errorf("usable: %v", ids)
	}
	if left := c.bench.volumes(); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestTheVolumeOfAKilledVerificationIsRemovedByTheNext(t *testing.T) {
	c := newClusterTest(t)
	c.write(10)
	made := c.create()
	_, err := c.Cluster.mount(c.ctx, snapshot.Select{ID: made.ID, Unverified: true}, c.mount, c.instance+" "+c.mount) // and killed here
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Cluster.mount(c.ctx, snapshot.Select{ID: made.ID, Unverified: true}, filepath.Join(t.TempDir(), "mine"), "") // somebody's
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(c.ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	left := c.bench.volumes()
	if _, there := left[other.ID]; !there || len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	unlock, err := lockMount(c.mount)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := c.Verify(c.ctx, made.ID); !errors.Is(err, snapshot.ErrBusy) {
		t.Errorf("beside another verification: %v", err)
	}
}

func TestAScheduleKeepsEBSSnapshots(t *testing.T) {
	c := newClusterTest(t)
	notes, err := snapshot.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		c.write(5)
		s, err := schedule.New(schedule.Options{
			Cluster: "main", Topic: c.topic, Backend: c, Source: schedule.Live(c.datadir), Notes: notes, Interval: time.Hour, Force: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Once(c.ctx); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if ids := c.usable(); len(ids) != 2 {
		t.Errorf("usable: %v", ids)
	}
	state, err := schedule.ReadState(c.ctx, notes, "main")
	if err != nil || len(state.Runs) != 4 || state.Failures != 0 {
		t.Errorf("%+v, %v", state, err)
	}
}

func TestAVolumeThatIsNotEmptyOrNotOursIsRefused(t *testing.T) {
	c := newClusterTest(t)
	c.write(5)
	made := c.create()
	c.disks.held[made.ID] = t.TempDir() // what is on it is not what the tags promise
	if err := c.Verify(c.ctx, made.ID); !errors.Is(err, chaindata.ErrNoDatabase) || strings.Contains(err.Error(), "\n") {
		t.Errorf("an empty volume: %v", err)
	}
	if left := c.bench.volumes(); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	_, err := c.client.CreateTags(c.ctx, &ec2.CreateTagsInput{Resources: []string{made.ID}, Tags: []types.Tag{{Key: aws.String(tagDatadir), Value: aws.String("../../etc")}}})
	if err != nil {
		t.Fatal(err)
	}
	if points, err := c.List(c.ctx); err != nil || len(points) != 0 {
		t.Errorf("tags that lead elsewhere: %v, %v", points, err)
	}
}

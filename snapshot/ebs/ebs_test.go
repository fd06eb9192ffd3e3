package ebs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
	localmoto "github.com/drover-io/drover/tools/moto"
)

const zone = "us-east-1a"

// host stands for a host's devices and mounts.
type host struct {
	mu       sync.Mutex
	volume   string            // that holds the datadir
	synced   []string          // directories, in order
	mounted  map[string]string // device by directory
	mountErr error
	slow     int // so many questions are answered before a device appears
}

func (h *host) Below(dir string) (string, error) { return strings.TrimPrefix(dir, "/"), nil }

func (h *host) VolumeOf(string) (string, error) { return h.volume, nil }

func (h *host) Sync(dir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.synced = append(h.synced, dir)
	return nil
}

func (h *host) Device(volume, _ string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.slow > 0 {
		h.slow--
		return "", nil
	}
	return "/dev/" + volume, nil
}

func (h *host) Mount(device, dir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mountErr == nil {
		h.mounted[dir] = device
	}
	return h.mountErr
}

func (h *host) Unmount(dir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.mounted, dir)
	return nil
}

// bench is an emulated EC2 with one instance and one volume attached to it.
type bench struct {
	*testing.T
	ctx      context.Context
	url      string
	host     *host
	instance string
	backend  *Backend
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("starts moto")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	b := &bench{T: t, ctx: ctx, url: localmoto.ForTest(t, localmoto.Options{}).URL(), host: &host{mounted: make(map[string]string)}}
	b.backend = b.open("main")
	images, err := b.backend.client.DescribeImages(ctx, &ec2.DescribeImagesInput{})
	if err != nil {
		t.Fatal(err)
	}
	run, err := b.backend.client.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: images.Images[0].ImageId, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: types.InstanceTypeM5Large,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.instance = aws.ToString(run.Instances[0].InstanceId)
	volume, err := b.backend.client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zone), Size: aws.Int32(100)})
	if err != nil {
		t.Fatal(err)
	}
	b.host.volume = aws.ToString(volume.VolumeId)
	_, err = b.backend.client.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: volume.VolumeId, InstanceId: &b.instance, Device: aws.String("/dev/sdf")})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open(cluster string) *Backend {
	b.Helper()
	backend, err := New(b.ctx, Options{
		Cluster: cluster, Region: "us-east-1", Endpoint: b.url, System: b.host, Poll: 10 * time.Millisecond,
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
	})
	if err != nil {
		b.Fatal(err)
	}
	return backend
}

var begun = time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC)

// take takes a snapshot of block n.
func (b *bench) take(backend *Backend, n uint64) Snapshot {
	b.Helper()
	s, err := backend.Create(b.ctx, CreateOptions{
		Datadir:  "/datadir",
		Position: changelog.Position{Cluster: backend.opts.Cluster, Timeline: 3, Sequence: 1000 * n, Offset: int64(10 * n)},
		Head:     snapshot.Head{Number: n, Hash: fmt.Sprintf("0x%064x", n)},
		Taken:    begun.Add(time.Duration(n) * time.Hour),
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func (b *bench) volumes() map[string]types.Volume {
	b.Helper()
	found, err := b.backend.volumes(b.ctx, types.Filter{Name: aws.String("tag:" + tagCluster), Values: []string{"main"}})
	if err != nil {
		b.Fatal(err)
	}
	byID := make(map[string]types.Volume)
	for _, v := range found {
		byID[aws.ToString(v.VolumeId)] = v
	}
	return byID
}

func TestTheNewestUsableSnapshotOfTheClusterIsFound(t *testing.T) {
	b := newBench(t)
	other := b.open("other")
	if _, err := b.backend.Newest(b.ctx); !errors.Is(err, snapshot.ErrNoSnapshot) {
		t.Fatalf("none yet: %v", err)
	}
	second, first, third, foreign := b.take(b.backend, 2), b.take(b.backend, 1), b.take(b.backend, 3), b.take(other, 9)
	if len(b.host.synced) != 4 || b.host.synced[0] != "/datadir" {
		t.Errorf("synced: %v", b.host.synced)
	}
	for _, s := range []Snapshot{first, second} {
		if err := b.backend.MarkUsable(b.ctx, s.ID, begun); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.MarkUsable(b.ctx, foreign.ID, begun); err != nil {
		t.Fatal(err)
	}
	got, err := b.backend.Newest(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := Snapshot{
		ID: second.ID, Position: changelog.Position{Cluster: "main", Timeline: 3, Sequence: 2000, Offset: 20},
		Head: snapshot.Head{Number: 2, Hash: fmt.Sprintf("0x%064x", 2)}, Taken: begun.Add(2 * time.Hour), Usable: begun, SizeGiB: 100, Complete: true, Datadir: "datadir",
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	all, err := b.backend.List(b.ctx)
	if err != nil || len(all) != 3 || all[0].ID != first.ID || all[2].ID != third.ID {
		t.Errorf("%+v, %v", all, err)
	}
	if err := b.backend.Delete(b.ctx, foreign.ID); !errors.Is(err, snapshot.ErrWrongCluster) {
		t.Errorf("delete of another cluster's: %v", err)
	}
	if err := b.backend.Delete(b.ctx, second.ID, second.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := b.backend.Newest(b.ctx); err != nil || got.ID != first.ID {
		t.Errorf("after the newest usable one was deleted: %+v, %v", got, err)
	}
	if _, err := other.Newest(b.ctx); err != nil {
		t.Errorf("the other cluster's is gone: %v", err)
	}
}

func TestASnapshotComesBackAsAMountedVolume(t *testing.T) {
	b := newBench(t)
	s := b.take(b.backend, 1)
	b.host.slow = 3
	v, err := b.backend.Restore(b.ctx, RestoreOptions{
		Snapshot: s.ID, Instance: b.instance, Zone: zone, Mount: "/mnt/restored", IOPS: 6000, Throughput: 500, InitializationRate: 200,
	})
	if err != nil {
		t.Fatal(err)
	}
	if b.host.mounted["/mnt/restored"] != "/dev/"+v.ID {
		t.Errorf("mounted: %v", b.host.mounted)
	}
	made, ok := b.volumes()[v.ID]
	if !ok || aws.ToString(made.SnapshotId) != s.ID || made.VolumeType != types.VolumeTypeGp3 || aws.ToInt32(made.Iops) != 6000 || aws.ToInt32(made.Throughput) != 500 {
		t.Errorf("%+v", made)
	}
	if v.Device != "/dev/sdg" { // sdf is the datadir's
		t.Errorf("attached as %s", v.Device)
	}
	if ids, err := b.backend.Clean(b.ctx, -time.Hour); err != nil || len(ids) > 0 {
		t.Errorf("clean takes %v, which is in use, %v", ids, err)
	}
	for range 2 {
		if err := b.backend.Release(b.ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	if left := b.volumes(); len(left) > 0 || len(b.host.mounted) > 0 {
		t.Errorf("left: %v, mounted %v", left, b.host.mounted)
	}
}

func TestAFailedRestoreLeavesNoVolume(t *testing.T) {
	b := newBench(t)
	s := b.take(b.backend, 1)
	opts := RestoreOptions{Snapshot: s.ID, Instance: b.instance, Zone: zone, Mount: "/mnt/restored"}

	b.host.mountErr = errors.New("wrong fs type")
	if _, err := b.backend.Restore(b.ctx, opts); !errors.Is(err, b.host.mountErr) {
		t.Errorf("%v", err)
	}
	if left := b.volumes(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}

	b.host.mountErr, b.host.slow = nil, 1<<30
	ctx, cancel := context.WithTimeout(b.ctx, time.Second)
	defer cancel()
	if _, err := b.backend.Restore(ctx, opts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if left := b.volumes(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	opts.Instance = "i-0123456789abcdef0"
	if _, err := b.backend.Restore(b.ctx, opts); err == nil || !strings.Contains(err.Error(), "InvalidInstanceID") {
		t.Errorf("%v", err)
	}
	if left := b.volumes(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestVolumesOfKilledRestoresAreCleanedUp(t *testing.T) {
	b := newBench(t)
	s := b.take(b.backend, 1)
	id, err := b.backend.makeVolume(b.ctx, RestoreOptions{Snapshot: s.ID, Zone: zone, Type: "gp3"}) // and killed here
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := b.backend.Clean(b.ctx, time.Hour); err != nil || len(ids) > 0 {
		t.Fatalf("a young one: %v, %v", ids, err)
	}
	if ids, err := b.open("other").Clean(b.ctx, -time.Hour); err != nil || len(ids) > 0 {
		t.Fatalf("another cluster's: %v, %v", ids, err)
	}
	if ids, err := b.backend.Clean(b.ctx, -time.Hour); err != nil || len(ids) != 1 || ids[0] != id {
		t.Fatalf("%v, %v", ids, err)
	}
}

func TestWrongUseIsSaidInOneLine(t *testing.T) {
	b := newBench(t)
	if _, err := New(b.ctx, Options{}); !errors.Is(err, snapshot.ErrUsage) {
		t.Errorf("no cluster: %v", err)
	}
	_, err := b.backend.Create(b.ctx, CreateOptions{Position: changelog.Position{Cluster: "other"}})
	if !errors.Is(err, snapshot.ErrWrongCluster) {
		t.Errorf("another cluster's datadir: %v", err)
	}
	opts := RestoreOptions{Snapshot: "snap-0123456789abcdef0", Instance: b.instance, Zone: zone}
	if _, err := b.backend.Restore(b.ctx, opts); !errors.Is(err, snapshot.ErrNoSnapshot) || strings.Contains(err.Error(), "\n") {
		t.Errorf("no such snapshot: %v", err)
	}
	opts.InitializationRate = 50
	if _, err := b.backend.Restore(b.ctx, opts); !errors.Is(err, snapshot.ErrUsage) {
		t.Errorf("a rate that EBS does not have: %v", err)
	}
}

func TestTagsOfOthersAreRefused(t *testing.T) {
	backend := &Backend{opts: Options{Cluster: "main"}}
	good := map[string]string{
		tagFormat: "1", tagCluster: "main", tagTimeline: "3", tagSequence: "7", tagOffset: "-1", tagBlock: "5",
		tagHash: "0x05", tagTaken: "2026-11-21T13:00:00Z", tagUsable: "2026-11-21T14:00:00Z",
	}
	if _, err := backend.parse(types.Snapshot{Tags: tags(good)}); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		tagFormat: "", tagTimeline: "-3", tagSequence: "seven", tagOffset: "1.5", tagBlock: "", tagDatadir: "../etc", tagTaken: "today", tagUsable: "true",
	} {
		bad := make(map[string]string)
		for k, v := range good {
			bad[k] = v
		}
		bad[key] = value
		if _, err := backend.parse(types.Snapshot{Tags: tags(bad)}); !errors.Is(err, snapshot.ErrForeign) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%q: %v", key, value, err)
		}
	}
	good[tagFormat] = "2"
	if _, err := backend.parse(types.Snapshot{Tags: tags(good)}); !errors.Is(err, snapshot.ErrFutureFormat) {
		t.Errorf("%v", err)
	}
}

package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness/rig"
	"github.com/drover-io/drover/tools/disk"
)

const noSpace = "no space left on device"

// Fault 16: the replica's disk is full. It says so and is not ready, its position stays, and when there is space again it goes on.
func TestFullDiskOfTheReplica(t *testing.T) {
	t.Parallel()
	f := rig.Generate(t, rig.Size{Blocks: 80, Txs: 60})
	c := newCluster(t, f)
	c.ReplicaFlags = rig.Fresh
	small := disk.Small(t, "256m")
	datadir := filepath.Join(small.Dir, "replica")
	rig.CopyTree(t, c.CopyAtRest(t, "copy", 1), datadir)
	master, replica := c.StartMaster(t), c.StartReplica(t, datadir)
	master.Feed(t, f.Blocks[:10]...)
	rig.SameHead(t, time.Minute, master, replica)

	small.Fill(t)
	master.Feed(t, f.Blocks[10:60]...)
	rig.Until(t, time.Minute, func(ctx context.Context) error {
		if !replica.Running() {
			return nil // to be started again by whoever looks after it
		}
		s, err := replica.Status(ctx)
		if err != nil || s.Ready || !strings.Contains(strings.Join(s.Reasons, "; "), noSpace) {
			return errors.Join(errors.New("the replica does not say that its disk is full"), err)
		}
		return nil
	})
	if !strings.Contains(replica.Tail(200), noSpace) {
		t.Errorf("the log does not say what is wrong:\n%s", replica.Tail(20))
	}
	small.Free(t)
	if !replica.Running() {
		replica = c.StartReplica(t, datadir)
	}
	rig.SameHead(t, 2*time.Minute, master, replica)
	master.Feed(t, f.Blocks[60:]...)
	rig.SameHead(t, time.Minute, master, replica)
	master.End(t)
	replica.End(t)
	c.Sync(t, time.Minute, datadir)
	rig.RequireEqual(t, c.Master, datadir)
}

// Fault 16: the master's disk is full, in the middle of what geth writes. What it committed before reaches the replicas, and
// when there is space again, master and geth go on, on the same disk, without a hole and on the same timeline.
func TestFullDiskOfTheMaster(t *testing.T) {
	t.Parallel()
	f := rig.Generate(t, rig.Size{Blocks: 80, Txs: 60})
	c := newCluster(t, f)
	c.ReplicaFlags = rig.Fresh
	small := disk.Small(t, "256m")
	datadir := c.CopyAtRest(t, "replica", 1)
	full := c.At(t, filepath.Join(small.Dir, "master"))
	rig.CopyTree(t, c.Master, full.Master)
	master, replica := full.StartMaster(t), c.StartReplica(t, datadir)
	master.Feed(t, f.Blocks[:10]...)
	rig.SameHead(t, time.Minute, master, replica)
	geth := master.Geth(t)

	small.Fill(t)
	fed := 10
	for ; fed < 60; fed++ {
		if err := master.FeedOne(t.Context(), f.Blocks[fed]); err != nil {
			t.Logf("geth refuses block %d: %v", fed+1, err)
			break
		}
	}
	if fed == 60 {
		t.Fatal("the fault did not fire: geth wrote 50 blocks to a full disk")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	code, err := master.Wait(ctx)
	switch {
	case err == nil && code == 0:
		t.Error("geth died of a full disk, and the master's exit code says that all is well")
	case err != nil: // some failures end geth, with some it answers on and writes no more
		if _, err := master.Stop(2 * time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the master ended with %d, %v", code, err)
	rig.Gone(t, geth)
	if !strings.Contains(master.Tail(500), noSpace) {
		t.Errorf("the log does not say what is wrong:\n%s", master.Tail(20))
	}

	small.Free(t)
	master = full.StartMaster(t)
	height, err := master.Height(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	master.Feed(t, f.Blocks[height:]...)
	rig.SameHead(t, 2*time.Minute, master, replica)
	if s, err := replica.Status(t.Context()); err != nil || s.Timeline != 1 {
		t.Errorf("timeline %d, %v: nothing that geth counted as written was lost", s.Timeline, err)
	}
	master.End(t)
	replica.End(t)
	c.Sync(t, time.Minute, datadir)
	rig.RequireEqual(t, full.Master, datadir)
}

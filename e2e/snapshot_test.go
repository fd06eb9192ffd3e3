package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// From nothing to serving: snapshots are taken of a master that works, the newest is verified, and a replica with an empty
// datadir restores it, replays what came since and serves. An unverified snapshot is not started from.
func TestReplicaStartsFromASnapshotOfARunningMaster(t *testing.T) {
	t.Parallel()
	f := rig.Generate(t, rig.Size{Blocks: 45, Txs: 20})
	c := newCluster(t, f)
	c.ReplicaFlags = rig.Fresh
	store := filepath.Join(c.Dir, "store")
	snapshots := func(command string, flags ...string) harness.Command {
		return c.SnapshotCommand(t, store, command, flags...)
	}
	master := c.StartMaster(t)
	master.Feed(t, f.Blocks[:15]...)
	rig.Succeed(t, time.Minute, snapshots("create", "--datadir", c.Master))
	datadir := filepath.Join(c.Dir, "replica")
	rig.RequireExit(t, 1, c.ReplicaCommand(t, datadir, rig.Port(t), "--snapshot", store), "not verified")
	rig.Succeed(t, time.Minute, snapshots("verify"))

	master.Feed(t, f.Blocks[15:30]...)
	rig.Succeed(t, time.Minute, snapshots("create", "--datadir", c.Master))
	rig.Succeed(t, time.Minute, snapshots("verify"))
	list := rig.Succeed(t, time.Minute, snapshots("list"))
	if rows := strings.Count(list, "yes"); rows != 2 {
		t.Fatalf("%d usable snapshots, want 2:\n%s", rows, list)
	}
	replica := c.StartReplica(t, datadir, "--snapshot", store)
	rig.SameHead(t, time.Minute, master, replica)
	master.Feed(t, f.Blocks[30:]...)
	rig.SameHead(t, time.Minute, master, replica)
	replica.End(t)

	again := c.StartReplica(t, datadir, "--snapshot", store) // it has its database now
	rig.SameHead(t, time.Minute, master, again)
	again.End(t)
	master.End(t)
	c.Sync(t, time.Minute, datadir)
	rig.RequireEqual(t, c.Master, datadir)
	rig.RequireExit(t, 2, snapshots("restore", "--datadir", datadir), "not empty")
	out := rig.Succeed(t, time.Minute, snapshots("prune", "--keep", "1", "--confirm"))
	if !strings.Contains(out, "keep") || strings.Count(rig.Succeed(t, time.Minute, snapshots("list")), "yes") != 1 {
		t.Errorf("one usable snapshot should be left after:\n%s", out)
	}
}

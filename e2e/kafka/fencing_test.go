package kafkae2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// Fault 9: master and geth stand still, a replica's datadir takes over, and then they wake: the old master ends by
// itself, and every replica ignores what it wrote behind the boundary.
func TestPausedMasterIsFencedOnRealKafka(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 60, Txs: 20})
	c := newCluster(t, "fencing", f, sharedKafka(t))
	r1, r2, late := c.CopyAtRest(t, "r1", 1), c.CopyAtRest(t, "r2", 1), c.CopyAtRest(t, "late", 1)
	master := c.StartMaster(t)
	candidate, follower := c.StartReplica(t, r1), c.StartReplica(t, r2)
	master.Feed(t, f.Blocks[:30]...)
	rig.SameHead(t, time.Minute, master, candidate)
	rig.SameHead(t, time.Minute, master, follower)
	candidate.End(t)

	geth := master.Geth(t)
	for _, pid := range []int{geth, master.Pid()} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	promoted := c.at(t, r1)
	next := promoted.StartMaster(t, "--takeover", "--takeover.window", "500ms")
	next.Feed(t, f.Blocks[30:45]...)
	rig.SameHead(t, time.Minute, next, follower)

	// The old geth writes a side branch before its master has seen anything.
	if err := syscall.Kill(geth, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	master.Feed(t, f.Extend(t, f.Blocks[29], 3, 7)...)
	if err := master.Resume(); err != nil {
		t.Fatal(err)
	}
	rig.RequireEnd(t, 4, master.Process, "timeline 2")
	if harness.Alive(geth) {
		t.Error("the old geth runs on")
	}
	if n := c.BehindBoundary(t); n == 0 {
		t.Error("the fault did not fire: nothing of the old master stands behind the boundary")
	} else {
		t.Logf("%d frames of the old master stand behind the boundary", n)
	}
	next.Feed(t, f.Blocks[45:]...)
	rig.SameHead(t, time.Minute, next, follower)
	newcomer := c.StartReplica(t, late)
	rig.SameHead(t, time.Minute, next, newcomer)
	next.End(t)
	// Had the old one gone on, it would have come to sequences that are due by now.
	tail := rig.Must(c.OpenLog(t).Tail(t.Context()))(t)
	batch := new(leveldb.Batch)
	batch.Put([]byte("of the older timeline"), nil)
	stale := batchFrame(1, tail.Sequence+1, batch)
	c.WriteTopic(t, stale.AppendTo(nil))
	follower.End(t)
	newcomer.End(t)
	promoted.requireEqual(t, r2, late)
}

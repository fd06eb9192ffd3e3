//go:build soak

package kafkae2e

import (
	"syscall"
	"testing"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// Fault 9: master and geth stand still, a replica's datadir takes over, and then they wake: the old master ends by
// itself, and every replica ignores what it wrote behind the boundary.
func TestPausedMasterIsFencedOnRealKafka(t *testing.T) {
	c, f := newCluster(t, 60, 20, localkafka.Options{})
	r1, r2, late := c.copyAtRest(t, "r1", 1), c.copyAtRest(t, "r2", 1), c.copyAtRest(t, "late", 1)
	master := c.startMaster(t)
	candidate, follower := c.startReplica(t, r1), c.startReplica(t, r2)
	feed(t, master, f.blocks[:30])
	follows(t, master, candidate)
	follows(t, master, follower)
	candidate.stop(t)

	geth := master.geth(t)
	for _, pid := range []int{geth, master.Pid()} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	promoted := c.at(t, r1)
	next := promoted.startMaster(t, "--takeover", "--takeover.window", "500ms")
	feed(t, next, f.blocks[30:45])
	follows(t, next, follower)

	// The old geth writes a side branch before its master has seen anything.
	if err := syscall.Kill(geth, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	feed(t, master, f.extend(t, f.blocks[29], 3, 7))
	if err := master.Resume(); err != nil {
		t.Fatal(err)
	}
	requireEnd(t, 4, master.Process, "timeline 2")
	if harness.Alive(geth) {
		t.Error("the old geth runs on")
	}
	if n := c.behindBoundary(t); n == 0 {
		t.Error("the fault did not fire: nothing of the old master stands behind the boundary")
	} else {
		t.Logf("%d frames of the old master stand behind the boundary", n)
	}
	feed(t, next, f.blocks[45:])
	follows(t, next, follower)
	newcomer := c.startReplica(t, late)
	follows(t, next, newcomer)
	for _, replica := range []*node{follower, newcomer} {
		replica.settles(t)
	}
	next.stop(t)
	follower.stop(t)
	newcomer.stop(t)
	for _, datadir := range []string{r2, late} {
		c.sync(t, datadir)
		requireEqual(t, promoted.master, datadir)
	}
}

// behindBoundary counts the batches of an older timeline that stand behind the start of the newest.
func (c *cluster) behindBoundary(t *testing.T) (frames int) {
	t.Helper()
	log := c.openLog(t)
	all := bounds(t, log)
	newest := uint64(0)
	err := log.ReadRange(t.Context(), all.first, all.next, func(e changelog.Entry) error {
		if newest = max(newest, e.Frame.Timeline); e.Frame.Timeline < newest && e.Frame.Kind == changelog.KindBatch {
			frames++
		}
		return e.Err
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

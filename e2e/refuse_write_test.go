package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-io/drover/e2e/harness/rig"
)

// Fault 2: the database refuses writes while heartbeats go on. A limit on the
// size of files, put on the running process, fails every write to the journal.
func TestReplicaWhoseDatabaseRefusesWritesKeepsItsPosition(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	master := c.StartDevMaster(t, 0)
	replica := c.StartReplica(t, datadir)
	sender := rig.NewSender(t, f, master)
	sender.Send(t, 16)
	sender.Mined(t, time.Minute)
	replica.WaitReady(t, 2*time.Minute)
	rig.SameHead(t, time.Minute, master, replica)

	limitFiles(t, replica.Pid(), 1)
	sender.Send(t, 16)
	sender.Mined(t, time.Minute)
	rig.Until(t, 30*time.Second, func(ctx context.Context) error {
		if !replica.Running() {
			return nil // ends, to be started again: no reader is served stale data either
		}
		if replica.Ready(ctx) == nil {
			return errors.New("the replica is ready although its database refuses writes")
		}
		return nil
	})
	first, err := replica.Status(t.Context())
	if err == nil {
		// Nothing moves for the time of two heartbeats.
		rig.Until(t, 10*time.Second, func(ctx context.Context) error {
			status, err := master.Status(ctx)
			if err != nil {
				return err
			}
			if status.Sequence <= first.Sequence {
				return errors.New("the fault did not fire: the master is not ahead")
			}
			return nil
		})
		if second, err := replica.Status(t.Context()); err == nil && second.Sequence != first.Sequence {
			t.Errorf("the position moved from %d to %d while the database refused writes", first.Sequence, second.Sequence)
		}
	}

	if replica.Running() {
		limitFiles(t, replica.Pid(), unix.RLIM_INFINITY)
	} else {
		t.Logf("the replica ended when its database refused a write:\n%s", replica.Tail(5))
		replica = c.StartReplica(t, datadir)
	}
	replica.WaitReady(t, 2*time.Minute)
	rig.SameHead(t, time.Minute, master, replica)
	master.End(t)
	replica.End(t)
	c.Sync(t, time.Minute, datadir)
	rig.RequireEqual(t, c.Master, datadir)
}

func limitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	limit := unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

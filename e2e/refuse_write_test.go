package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-io/drover/e2e/harness"
)

// Fault 2: the database refuses writes while heartbeats go on. A limit on the
// size of files, put on the running process, fails every write to the journal.
func TestReplicaWhoseDatabaseRefusesWritesKeepsItsPosition(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	c := newCluster(t, f)
	datadir := c.copyAtRest(t, "replica", 1)
	master := c.startDevMaster(t, 0)
	replica := c.startReplica(t, datadir)
	sender := newSender(t, f, master)
	sender.send(t, 16)
	sender.mined(t, time.Minute)
	replica.waitReady(t, 2*time.Minute)
	sameHead(t, time.Minute, master, replica)

	limitFiles(t, replica.Pid(), 1)
	sender.send(t, 16)
	sender.mined(t, time.Minute)
	until(t, 30*time.Second, func(ctx context.Context) error {
		if !replica.Running() {
			return nil // ends, to be started again: no reader is served stale data either
		}
		if replica.ready(ctx) == nil {
			return errors.New("the replica is ready although its database refuses writes")
		}
		return nil
	})
	first, err := replica.status(t.Context())
	if err == nil {
		// Nothing moves for the time of two heartbeats.
		until(t, 10*time.Second, func(ctx context.Context) error {
			status, err := master.status(ctx)
			if err != nil {
				return err
			}
			if status.Sequence <= first.Sequence {
				return errors.New("the fault did not fire: the master is not ahead")
			}
			return nil
		})
		if second, err := replica.status(t.Context()); err == nil && second.Sequence != first.Sequence {
			t.Errorf("the position moved from %d to %d while the database refused writes", first.Sequence, second.Sequence)
		}
	}

	if replica.Running() {
		limitFiles(t, replica.Pid(), unix.RLIM_INFINITY)
	} else {
		t.Logf("the replica ended when its database refused a write:\n%s", replica.Tail(5))
		replica = c.startReplica(t, datadir)
	}
	replica.waitReady(t, 2*time.Minute)
	sameHead(t, time.Minute, master, replica)
	master.stop(t)
	replica.stop(t)
	c.sync(t, time.Minute, datadir)
	requireEqual(t, harness.Chaindata(c.master), harness.Chaindata(datadir))
}

func limitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	limit := unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

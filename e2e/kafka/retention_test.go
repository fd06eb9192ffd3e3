package kafkae2e

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// Fault 8: a replica is away for longer than the topic reaches back, as a paused process and as one that is started
// again: exit code 3, with its position, the first offset that is left, and the newest usable snapshot where a store was
// named. A replica that was not away follows on, and so does one that starts from that snapshot.
func TestReplicaAwayTooLongExitsThree(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 100, Txs: 20})
	c := newCluster(t, "retention", f, sharedKafka(t))
	paused, stopped, present := c.CopyAtRest(t, "paused", 1), c.CopyAtRest(t, "stopped", 1), c.CopyAtRest(t, "present", 1)
	master := c.StartMaster(t, "--kafka.retention", "15s")
	// Small segments, by time: batches may be large.
	if err := c.kafka.SetTopic(t.Context(), changelog.TopicName(c.Name), "segment.ms", "1000"); err != nil {
		t.Fatal(err)
	}
	log := c.OpenLog(t)
	sleeper, leaver, follower := c.StartReplica(t, paused), c.StartReplica(t, stopped), c.StartReplica(t, present)
	master.Feed(t, f.Blocks[:5]...)
	for _, replica := range []*rig.Node{sleeper, leaver, follower} {
		rig.SameHead(t, 2*time.Minute, master, replica)
	}

	leaver.End(t)
	if err := sleeper.Pause(); err != nil {
		t.Fatal(err)
	}
	// What was on its way to the sleeper when it fell asleep is not lost to it.
	master.Feed(t, f.Blocks[5])
	mark := bounds(t, log).next
	blocks := f.Blocks[6:]
	rig.Until(t, 2*time.Minute, func(ctx context.Context) error {
		if len(blocks) > 0 {
			if err := master.FeedOne(ctx, blocks[0]); err != nil {
				return err
			}
			blocks = blocks[1:]
		}
		if b := bounds(t, log); b.first <= mark {
			return fmt.Errorf("the fault did not fire: offset %d is still there (first %d, next %d, %d blocks left)", mark, b.first, b.next, len(blocks))
		}
		return nil
	})
	t.Logf("%d blocks later, the topic begins at offset %d; the replicas were at %d at most", len(f.Blocks)-6-len(blocks), bounds(t, log).first, mark)

	if err := sleeper.Resume(); err != nil {
		t.Fatal(err)
	}
	requireGone(t, rig.RequireEnd(t, 3, sleeper.Process), mark)
	store, restored := filepath.Join(c.Dir, "store"), filepath.Join(c.Dir, "restored")
	rig.Succeed(t, time.Minute, c.SnapshotCommand(t, store, "create", "--datadir", c.Master))
	rig.Succeed(t, time.Minute, c.SnapshotCommand(t, store, "verify"))
	for _, datadir := range []string{stopped, paused} { // and a second time: nothing has changed
		line := rig.RequireExit(t, 3, c.ReplicaCommand(t, datadir, rig.Port(t), "--snapshot", store), "newest usable snapshot is "+store+"#")
		requireGone(t, line, mark)
	}
	newcomer := c.StartReplica(t, restored, "--snapshot", store)
	for _, replica := range []*rig.Node{follower, newcomer} {
		rig.SameHead(t, time.Minute, master, replica)
	}
	master.End(t)
	follower.End(t)
	newcomer.End(t)
	rig.RequireEqual(t, c.Master, present)
	rig.RequireEqual(t, c.Master, restored)
}

type span struct{ first, next int64 }

func bounds(t *testing.T, log *changelog.Log) (s span) {
	t.Helper()
	var err error
	if s.first, s.next, err = log.Bounds(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

var goneLine = regexp.MustCompile(`no longer retained: position retention timeline 1 sequence \d+ \(offset (\d+)\), the topic's first retained offset is (\d+)`)

// requireGone wants a line that names the position, which is not behind mark, and the first offset that is left, which is.
func requireGone(t *testing.T, line string, mark int64) {
	t.Helper()
	found := goneLine.FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("the line does not name the position and the first offset: %s", line)
	}
	position := rig.Must(strconv.ParseInt(found[1], 10, 64))(t)
	first := rig.Must(strconv.ParseInt(found[2], 10, 64))(t)
	if position > mark || first <= mark {
		t.Errorf("position %d and first offset %d do not lie around %d: %s", position, first, mark, line)
	}
}

//go:build soak

package kafkae2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// Fault 8: a replica is away for longer than the topic reaches back, as a paused process and as one that is started
// again: exit code 3, with its position and the first offset that is left. A replica that was not away follows on.
func TestReplicaAwayTooLongExitsThree(t *testing.T) {
	properties := localkafka.FastRetention()
	maps.Copy(properties, map[string]string{"log.roll.ms": "1000"}) // small by time, as batches may be large
	c, f := newCluster(t, 100, 20, localkafka.Options{Properties: properties})
	paused, stopped, present := c.copyAtRest(t, "paused", 1), c.copyAtRest(t, "stopped", 1), c.copyAtRest(t, "present", 1)
	master := c.startMaster(t, "--kafka.retention", "15s")
	log := c.openLog(t)
	sleeper, leaver, follower := c.startReplica(t, paused), c.startReplica(t, stopped), c.startReplica(t, present)
	feed(t, master, f.blocks[:5])
	for _, replica := range []*node{sleeper, leaver, follower} {
		follows(t, master, replica)
	}

	leaver.stop(t)
	if err := sleeper.Pause(); err != nil {
		t.Fatal(err)
	}
	// What was on its way to the sleeper when it fell asleep is not lost to it.
	feed(t, master, f.blocks[5:6])
	mark := bounds(t, log).next
	blocks := f.blocks[6:]
	until(t, 2*time.Minute, func(ctx context.Context) error {
		if len(blocks) > 0 {
			if err := feedOne(ctx, master, blocks[0]); err != nil {
				return err
			}
			blocks = blocks[1:]
		}
		if b := bounds(t, log); b.first <= mark {
			return fmt.Errorf("the fault did not fire: offset %d is still there (first %d, next %d, %d blocks left)", mark, b.first, b.next, len(blocks))
		}
		return nil
	})
	t.Logf("%d blocks later, the topic begins at offset %d; the replicas were at %d at most", len(f.blocks)-6-len(blocks), bounds(t, log).first, mark)

	if err := sleeper.Resume(); err != nil {
		t.Fatal(err)
	}
	requireGone(t, requireEnd(t, 3, sleeper.Process), mark) // as the reader tells it: the offset alone
	for _, datadir := range []string{stopped, paused} {     // and a second time: nothing has changed
		line := requireEnd(t, 3, start(t, c.replicaCommand(t, datadir, port(t))), "timeline 1 ")
		if requireGone(t, line, mark) == 0 {
			t.Errorf("the line does not name the sequence: %s", line)
		}
	}
	follows(t, master, follower)
	follower.settles(t)
	master.stop(t)
	follower.stop(t)
	requireEqual(t, c.master, present)
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

var gone3 = regexp.MustCompile(`no longer retained: position test timeline \d+ sequence (\d+) \(offset (\d+)\), the topic's first retained offset is (\d+)`)

// requireGone wants a line that names the position, which is not behind mark, and the first offset that is left, which is.
// The newest usable snapshot is named as soon as there are snapshots.
func requireGone(t *testing.T, line string, mark int64) (sequence int64) {
	t.Helper()
	found := gone3.FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("the line does not name the position and the first offset: %s", line)
	}
	position := must(strconv.ParseInt(found[2], 10, 64))(t)
	first := must(strconv.ParseInt(found[3], 10, 64))(t)
	if position > mark || first <= mark {
		t.Errorf("position %d and first offset %d do not lie around %d: %s", position, first, mark, line)
	}
	return must(strconv.ParseInt(found[1], 10, 64))(t)
}

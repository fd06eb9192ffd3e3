package kafkae2e

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness/rig"
)

// victims take turns.
var victims = []string{"master", "replica", "geth", "both"}

// kill kills one of the cluster's processes by SIGKILL, if one is due. finishKills starts it again on the same disk.
func (b *storm) kill(t *testing.T) {
	t.Helper()
	if b.due == 0 {
		return
	}
	b.due--
	victim := victims[sum(b.killed)%len(victims)]
	b.killed[victim]++
	b.moment(200 * time.Millisecond)
	if victim == "replica" {
		if err := b.replica.Kill(); err != nil {
			t.Fatal(err)
		}
		b.down = append(b.down, func(t *testing.T) { b.replica = b.StartReplica(t, b.live) })
		return
	}
	geth := b.master.Geth(t)
	b.feeder.kills.Add(1)
	if victim != "master" {
		rig.Kill9(geth)
	}
	if victim != "geth" {
		if err := b.master.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	b.down = append(b.down, func(t *testing.T) { b.restartMaster(t, victim, geth) })
}

// finishKills starts again what was killed, and does the kills that are still due.
func (b *storm) finishKills(t *testing.T) {
	t.Helper()
	for len(b.down) > 0 || b.due > 0 {
		for _, start := range b.down {
			start(t)
		}
		b.down = nil
		b.kill(t)
	}
}

// restartMaster waits for the end of a killed master, whose geth never outlives it, and starts it again.
func (b *storm) restartMaster(t *testing.T, victim string, geth int) {
	t.Helper()
	ctx, cancel := b.limit(t)
	defer cancel()
	code, err := b.master.Wait(ctx) // alone, it publishes the rest first
	if err != nil || victim == "geth" && code != 128+9 {
		t.Fatalf("exit code %d after a kill of %s: %v\n%s", code, victim, err, b.master.Tail(20))
	}
	rig.Gone(t, geth)
	for {
		if b.master, err = b.TryMaster(t); err == nil {
			break
		}
		b.endedForLackOfBrokers(t, b.master)
	}
	if err := b.feeder.restarted(b.master); err != nil {
		t.Fatal(err)
	}
}

// reviveReplica starts a replica again that was started while no broker answered.
func (b *storm) reviveReplica(t *testing.T) {
	t.Helper()
	for !b.replica.Running() {
		b.endedForLackOfBrokers(t, b.replica)
		b.replica = b.StartReplica(t, b.live)
	}
}

// endedForLackOfBrokers requires the end of a node that was started while no broker answered: whoever looks after it
// starts it again. Anything else fails the test.
func (b *storm) endedForLackOfBrokers(t *testing.T, n *rig.Node) {
	t.Helper()
	ctx, cancel := b.limit(t)
	defer cancel()
	if code, err := n.Wait(ctx); err != nil || code != 1 || !strings.Contains(n.Tail(1), "no Kafka broker answers") {
		t.Fatalf("%s, started again, ended with %d: %v\n%s", n.Name, code, err, n.Tail(20))
	}
}

//go:build soak

package kafkae2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	localkafka "github.com/drover-io/drover/tools/kafka"
)

// brokerFaults injects faults into three brokers, and counts those that did something.
type brokerFaults struct {
	*localkafka.Cluster
	master *node
	random *rand.Rand
	fired  map[string]int
}

// Fault 5: brokers are killed, paused, all killed, and leaders moved, while the chain moves: geth goes on, nothing is
// lost, nothing is applied twice. DROVER_E2E_BROKER_FAULTS is how many faults (20).
func TestWritesSurviveBrokerFaults(t *testing.T) {
	n := number(t, "DROVER_E2E_BROKER_FAULTS", 20)
	c, f := newCluster(t, 1, 1, localkafka.Options{Brokers: 3})
	live, late := c.copyAtRest(t, "live", 1), c.copyAtRest(t, "late", 1)
	master := c.startDevMaster(t)
	replica := c.startReplica(t, live)
	sender := newSender(f, master)
	stopSending := sender.keepSending(t, 50*time.Millisecond)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	faults := &brokerFaults{Cluster: c.kafka, master: master, random: rand.New(rand.NewPCG(seed, 0)), fired: make(map[string]int)}
	began := time.Now()
	faults.run(t, n)
	t.Logf("%v within %s", faults.fired, time.Since(began).Round(time.Second))
	if total := sum(faults.fired); total < n {
		t.Errorf("%d faults fired, want %d", total, n)
	}
	stopSending()
	follows(t, master, replica)
	t.Logf("%d transactions, %d blocks", sender.sent, must(master.height(t.Context()))(t))
	newcomer := c.startReplica(t, late)
	follows(t, master, newcomer)
	newcomer.settles(t)
	master.stop(t)
	replica.stop(t)
	newcomer.stop(t)
	for _, datadir := range []string{live, late} {
		c.sync(t, datadir)
		requireEqual(t, c.master, datadir)
	}
}

func sum(counts map[string]int) (total int) {
	for n := range maps.Values(counts) {
		total += n
	}
	return total
}

// run injects n faults. Kinds take turns, so that each fires; victims and moments are random.
func (b *brokerFaults) run(t *testing.T, n int) {
	t.Helper()
	kinds := []func(*testing.T){
		b.moveLeader, b.pauseLeader, b.killLeader, b.moveLeader, b.pauseAny,
		b.moveLeader, b.pauseLeader, b.killAny, b.moveLeader, b.pauseMajority,
	}
	for i := range n {
		from := must(b.master.height(t.Context()))(t)
		if i%20 == 15 {
			b.killAll(t)
		} else {
			kinds[i%len(kinds)](t)
		}
		if !b.master.Running() {
			t.Fatalf("fault %d: the master has ended:\n%s", i, b.master.Tail(20))
		}
		until(t, time.Minute, func(ctx context.Context) error {
			height, err := b.master.height(ctx)
			if err == nil && height <= from {
				err = fmt.Errorf("fault %d: geth stands still at block %d", i, height)
			}
			return err
		})
	}
}

func (b *brokerFaults) limit(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 2*time.Minute)
}

// leader waits until the topic has one and all three replicas are in sync.
func (b *brokerFaults) leader(t *testing.T) int {
	t.Helper()
	ctx, cancel := b.limit(t)
	defer cancel()
	if err := b.WaitInSync(ctx, topic, 0, 3); err != nil {
		t.Fatal(err)
	}
	leader, _, err := b.Leader(ctx, topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

// other is a broker that is not id.
func (b *brokerFaults) other(id int) int {
	ids := slices.DeleteFunc(b.IDs(), func(other int) bool { return other == id })
	return ids[b.random.IntN(len(ids))]
}

// moment lets up to limit pass, while writes arrive: it is the fault's length.
func (b *brokerFaults) moment(limit time.Duration) {
	time.Sleep(time.Duration(b.random.Int64N(int64(limit))))
}

func (b *brokerFaults) moveLeader(t *testing.T) {
	t.Helper()
	from := b.leader(t)
	to := b.other(from)
	ctx, cancel := b.limit(t)
	defer cancel()
	if err := b.MoveLeader(ctx, topic, 0, to); err != nil {
		t.Fatal(err)
	}
	b.fired["leader moved"]++
}

func (b *brokerFaults) pauseLeader(t *testing.T) { t.Helper(); b.pause(t, b.leader(t)) }

func (b *brokerFaults) pauseAny(t *testing.T) { t.Helper(); b.leader(t); b.pause(t, b.other(0)) }

// pauseMajority leaves one broker, with which nothing can be written.
func (b *brokerFaults) pauseMajority(t *testing.T) {
	t.Helper()
	leader := b.leader(t)
	b.pause(t, leader, b.other(leader))
}

func (b *brokerFaults) pause(t *testing.T, ids ...int) {
	t.Helper()
	for _, id := range ids {
		if err := b.Pause(id); err != nil {
			t.Fatal(err)
		}
	}
	b.moment(3 * time.Second)
	for _, id := range ids {
		if err := b.Resume(id); err != nil {
			t.Fatal(err)
		}
	}
	b.fired[fmt.Sprintf("%d paused", len(ids))]++
}

func (b *brokerFaults) killLeader(t *testing.T) { t.Helper(); b.kill(t, b.leader(t)) }

func (b *brokerFaults) killAny(t *testing.T) { t.Helper(); b.leader(t); b.kill(t, b.other(0)) }

// killAll leaves nobody, and geth goes on all the same.
func (b *brokerFaults) killAll(t *testing.T) {
	t.Helper()
	b.leader(t)
	b.kill(t, b.IDs()...)
}

func (b *brokerFaults) kill(t *testing.T, ids ...int) {
	t.Helper()
	for _, id := range ids {
		pid := b.PID(id)
		if err := b.Kill(id); err != nil {
			t.Fatal(err)
		}
		if pid == 0 || b.Running(id) {
			t.Fatalf("the fault did not fire: broker %d, process %d", id, pid)
		}
	}
	if len(ids) == len(b.IDs()) {
		b.master.rises(t, 3)
	}
	b.fired[fmt.Sprintf("%d killed", len(ids))]++
	for _, id := range ids {
		if err := b.Launch(id); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := b.limit(t)
	defer cancel()
	if err := b.WaitReady(ctx, ids...); err != nil {
		t.Fatal(err)
	}
}

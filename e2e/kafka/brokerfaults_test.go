package kafkae2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// Faults 3, 4 and 5 at once: brokers are killed, paused, all killed, and leaders moved, while the chain moves and reorgs;
// and while a broker is away, master, geth, both of them or the replica are killed and started on the same disk. geth goes
// on, nothing is lost, nothing is there twice. DROVER_E2E_BROKER_FAULTS is how many broker faults (20), DROVER_E2E_KILLS
// how many kills (10).
func TestWritesSurviveBrokerFaultsAndKills(t *testing.T) {
	faults, kills := rig.Number(t, "DROVER_E2E_BROKER_FAULTS", 20), rig.Number(t, "DROVER_E2E_KILLS", 10)
	b := newStorm(t, "faults")
	late := b.CopyAtRest(t, "late", 1)
	b.start(t)
	began := time.Now()
	b.rage(t, faults, kills)
	b.stopFeeding(t)
	t.Logf("%v, killed %v, within %s: %d heads up to block %d, %d reorgs, the deepest of %d blocks", b.fired, b.killed,
		time.Since(began).Round(time.Second), b.feeder.heads.Load(), len(b.feeder.chain), b.feeder.branches, b.feeder.deepest)
	if b.feeder.deepest < deepReorg {
		t.Error("the fault did not fire: no deep reorg")
	}

	rig.SameHead(t, 2*time.Minute, b.master, b.replica)
	b.master.End(t)
	b.replica.End(t)
	found := b.requireOnce(t)
	t.Logf("%d batches up to sequence %d, %d frames twice", found.batches, found.last, found.duplicates)
	b.repeat(t, 10, b.random)
	if again := b.requireOnce(t); again.batches != found.batches || again.duplicates < found.duplicates+10 {
		t.Errorf("the fault did not fire: %d batches and %d duplicates after frames were sent again", again.batches, again.duplicates)
	}
	b.requireEqual(t, b.live, late)
}

// storm injects faults, and counts those that did something.
type storm struct {
	*cluster
	*localkafka.Cluster
	topic           string
	live            string // the replica's datadir
	master, replica *rig.Node
	feeder          *feeder
	random          *rand.Rand
	fired, killed   map[string]int
	due             int // kills before the next broker fault is over
	down            []func(*testing.T)
	stop            context.CancelFunc // of the feeder
}

// newStorm makes a cluster on three brokers of its own, with a master's and a replica's datadir at the genesis block.
func newStorm(t *testing.T, name string) *storm {
	t.Helper()
	rig.Drover(t) // built before brokers have to wait for it
	f := rig.Generate(t, rig.Size{Blocks: 0, Txs: 20})
	c := newCluster(t, name, f, localkafka.ForTest(t, localkafka.Options{Brokers: 3, StartTimeout: startLimit}))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return &storm{
		cluster: c, Cluster: c.kafka, topic: changelog.TopicName(c.Name), live: c.CopyAtRest(t, "live", 1), feeder: newFeeder(f, seed),
		random: rand.New(rand.NewPCG(seed, 0)), fired: make(map[string]int), killed: make(map[string]int),
	}
}

// start starts master and replica, and feeds the master's geth until stopFeeding.
func (b *storm) start(t *testing.T) {
	t.Helper()
	b.master, b.replica = b.StartMaster(t), b.StartReplica(t, b.live)
	ctx, cancel := context.WithCancel(t.Context())
	b.stop = cancel
	go b.feeder.run(ctx, b.master)
}

func (b *storm) stopFeeding(t *testing.T) {
	t.Helper()
	b.stop()
	<-b.feeder.done
	if b.feeder.err != nil {
		t.Fatal(b.feeder.err)
	}
}

// rage injects broker faults with kills spread over them. Kinds take turns, so that each fires; victims among the
// brokers, and moments, are random.
func (b *storm) rage(t *testing.T, faults, kills int) {
	t.Helper()
	kinds := []func(*testing.T){
		b.moveLeader, b.pauseLeader, b.killLeader, b.moveLeader, b.pauseAny,
		b.moveLeader, b.pauseLeader, b.killAny, b.moveLeader, b.pauseMajority,
	}
	for i := range faults {
		b.due = kills*(i+1)/faults - kills*i/faults
		kind := kinds[i%len(kinds)]
		if i%20 == 15 {
			kind = b.killAll
		}
		b.inSync(t)
		kind(t)
		b.finishKills(t)
		b.reviveReplica(t)
		for _, n := range []*rig.Node{b.master, b.replica} {
			if !n.Running() {
				t.Fatalf("fault %d: %s has ended:\n%s", i, n.Name, n.Tail(20))
			}
		}
		b.rises(t, 2)
	}
	if total := sum(b.fired); total < faults {
		t.Errorf("%d faults fired, want %d", total, faults)
	}
	if total := sum(b.killed); total < kills {
		t.Errorf("%d kills fired, want %d", total, kills)
	}
}

func sum(counts map[string]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

// rises waits until geth has taken some more heads.
func (b *storm) rises(t *testing.T, by int64) {
	t.Helper()
	from := b.feeder.heads.Load()
	rig.Until(t, 2*time.Minute, func(context.Context) error {
		select {
		case <-b.feeder.done:
			t.Fatalf("the feeder has ended: %v\n%s", b.feeder.err, b.master.Tail(20))
		default:
		}
		if heads := b.feeder.heads.Load(); heads < from+by {
			return fmt.Errorf("geth has taken %d heads, had taken %d", heads, from)
		}
		return nil
	})
}

func (b *storm) limit(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 2*time.Minute)
}

// inSync waits until all three replicas of the topic are in sync.
func (b *storm) inSync(t *testing.T) {
	t.Helper()
	ctx, cancel := b.limit(t)
	defer cancel()
	if err := b.WaitInSync(ctx, b.topic, 0, 3); err != nil {
		t.Fatal(err)
	}
}

func (b *storm) leader(t *testing.T) int {
	t.Helper()
	ctx, cancel := b.limit(t)
	defer cancel()
	leader, _, err := b.Leader(ctx, b.topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

// other is a broker that is not id.
func (b *storm) other(id int) int {
	ids := slices.DeleteFunc(b.IDs(), func(other int) bool { return other == id })
	return ids[b.random.IntN(len(ids))]
}

// moment lets up to limit pass, while writes arrive: it is the fault's length.
func (b *storm) moment(limit time.Duration) {
	time.Sleep(time.Duration(b.random.Int64N(int64(limit))))
}

func (b *storm) moveLeader(t *testing.T) {
	t.Helper()
	from := b.leader(t)
	to := b.other(from)
	ctx, cancel := b.limit(t)
	defer cancel()
	moved := make(chan error, 1)
	go func() { moved <- b.MoveLeader(ctx, b.topic, 0, to) }()
	b.kill(t)
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	if leader := b.leader(t); leader != to {
		t.Fatalf("the fault did not fire: broker %d leads, want %d", leader, to)
	}
	b.fired["leader moved"]++
}

func (b *storm) pauseLeader(t *testing.T) { t.Helper(); b.pause(t, b.leader(t)) }

func (b *storm) pauseAny(t *testing.T) { t.Helper(); b.pause(t, b.other(0)) }

// pauseMajority leaves one broker, with which nothing can be written.
func (b *storm) pauseMajority(t *testing.T) {
	t.Helper()
	leader := b.leader(t)
	b.pause(t, leader, b.other(leader))
}

func (b *storm) pause(t *testing.T, ids ...int) {
	t.Helper()
	for _, id := range ids {
		if err := b.Pause(id); err != nil {
			t.Fatal(err)
		}
	}
	b.moment(2 * time.Second)
	b.kill(t)
	for _, id := range ids {
		if err := b.Resume(id); err != nil {
			t.Fatal(err)
		}
	}
	b.fired[fmt.Sprintf("%d paused", len(ids))]++
}

func (b *storm) killLeader(t *testing.T) { t.Helper(); b.killBrokers(t, b.leader(t)) }

func (b *storm) killAny(t *testing.T) { t.Helper(); b.killBrokers(t, b.other(0)) }

// killAll leaves nobody, and geth goes on all the same.
func (b *storm) killAll(t *testing.T) { t.Helper(); b.killBrokers(t, b.IDs()...) }

func (b *storm) killBrokers(t *testing.T, ids ...int) {
	t.Helper()
	b.end(t, ids...)
	if len(ids) == len(b.IDs()) {
		b.rises(t, 5)
	}
	b.fired[fmt.Sprintf("%d killed", len(ids))]++
	b.kill(t)
	b.launch(t, ids...)
	b.finishKills(t) // while the brokers are on their way back
	b.waitReady(t, ids...)
}

// end kills brokers.
func (b *storm) end(t *testing.T, ids ...int) {
	t.Helper()
	for _, id := range ids {
		pid := b.PID(id)
		if err := b.Kill(id); err != nil {
			t.Fatal(err)
		}
		if pid == 0 || harness.Alive(pid) {
			t.Fatalf("the fault did not fire: broker %d, process %d", id, pid)
		}
	}
}

func (b *storm) launch(t *testing.T, ids ...int) {
	t.Helper()
	for _, id := range ids {
		if err := b.Launch(id); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *storm) waitReady(t *testing.T, ids ...int) {
	t.Helper()
	ctx, cancel := b.limit(t)
	defer cancel()
	if err := b.WaitReady(ctx, ids...); err != nil {
		t.Fatal(err)
	}
}

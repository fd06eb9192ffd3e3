package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// killLoop is a chain that grows by a segment for each kill.
type killLoop struct {
	*cluster
	f        *rig.Chain
	segments []string
	random   *rand.Rand
}

// segmentBlocks take geth about a second, in which it is to be killed.
const segmentBlocks = 10

func newKillLoop(t *testing.T, segments int) *killLoop {
	t.Helper()
	f := rig.Generate(t, rig.Size{Blocks: segments * segmentBlocks, Txs: 60})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := &killLoop{cluster: newCluster(t, f), f: f, random: rand.New(rand.NewPCG(seed, 0))}
	for i := range segments {
		path := filepath.Join(k.Dir, fmt.Sprintf("segment-%d.rlp", i))
		rig.WriteBlocks(t, path, f.Blocks[i*segmentBlocks:(i+1)*segmentBlocks])
		k.segments = append(k.segments, path)
	}
	return k
}

// Fault 3: kill -9 of master, geth or both, at any moment, then restart on the
// same disk: nothing is missing, nothing is applied twice.
func TestKillOfMasterAndGethLosesNothing(t *testing.T) {
	n := kills(t)
	k := newKillLoop(t, n)
	datadir := k.CopyAtRest(t, "replica", 1)
	fired := map[string]int{}
	for i, segment := range k.segments {
		// The victims take turns, the moments are random: while Drover starts,
		// while geth starts, imports or ends, while the rest is published.
		victim := []string{"master", "geth", "both"}[i%3]
		for !k.killDuring(t, segment, victim) {
			t.Logf("kill %d: the import was over before the %s could be killed", i, victim)
			segment = k.regrow(t, i)
		}
		fired[victim]++
		k.ImportUnderCapture(t, 2*time.Minute, segment)
		k.Sync(t, 2*time.Minute, datadir)
		rig.RequireEqual(t, k.Master, datadir)
	}
	t.Logf("killed: %v", fired)
}

// regrow gives work for another attempt: a sibling branch of the segment.
func (k *killLoop) regrow(t *testing.T, i int) string {
	t.Helper()
	path := filepath.Join(k.Dir, fmt.Sprintf("segment-%d-%d.rlp", i, k.random.Uint32()))
	first := i * segmentBlocks
	parent := k.f.Generator.Genesis()
	if first > 0 {
		parent = k.f.Blocks[first-1]
	}
	rig.WriteBlocks(t, path, k.f.Extend(t, parent, segmentBlocks, uint64(1+k.random.Uint32N(1<<20))))
	return path
}

// killDuring starts an import under capture and kills the victim after a random
// time. It says false when the victim had ended before.
func (k *killLoop) killDuring(t *testing.T, segment, victim string) bool {
	t.Helper()
	p := rig.Start(t, k.MasterCommand(t, rig.Port(t), harness.ImportArgs(k.Master, segment)))
	geth := 0
	if victim != "master" {
		geth = k.waitGeth(t, p)
	}
	after := time.Duration(k.random.Int64N(int64(1500 * time.Millisecond)))
	select {
	case <-time.After(after):
	case <-p.Done():
	}
	if !p.Running() || geth != 0 && !harness.Alive(geth) {
		p.Stop(time.Minute)
		return false
	}
	children, err := p.Children()
	if err != nil {
		t.Fatal(err)
	}
	if geth != 0 {
		rig.Kill9(geth)
	}
	if victim == "geth" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		code, err := p.Wait(ctx)
		if err != nil || code != 128+9 && code != 0 {
			t.Fatalf("exit code %d after geth was killed, want 137: %v\n%s", code, err, p.Tail(10))
		}
		return code != 0
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	// geth never outlives Drover.
	rig.Until(t, 10*time.Second, func(context.Context) error {
		for _, child := range children {
			if harness.Alive(child) {
				return fmt.Errorf("geth (process %d) outlived drover", child)
			}
		}
		return nil
	})
	return true
}

func (k *killLoop) waitGeth(t *testing.T, p *harness.Process) (pid int) {
	t.Helper()
	rig.Until(t, time.Minute, func(context.Context) error {
		children, err := p.Children()
		if err != nil {
			return err
		}
		if len(children) == 0 && p.Running() {
			return fmt.Errorf("drover has not started geth:\n%s", p.Tail(5))
		}
		if len(children) > 0 {
			pid = children[0]
		}
		return nil
	})
	return pid
}

// Fault 4: kill -9 of the replica at any moment of catching up: position and
// data agree, and it goes on from there.
func TestKillOfReplicaWhileCatchingUp(t *testing.T) {
	n := kills(t)
	k := newKillLoop(t, 20)
	initial := k.CopyAtRest(t, "initial", 1)
	k.ImportUnderCapture(t, 5*time.Minute, k.f.Path())

	// How long catching up takes here tells where to aim.
	timed := filepath.Join(k.Dir, "timed")
	rig.CopyTree(t, initial, timed)
	began := time.Now()
	k.Sync(t, 5*time.Minute, timed)
	took := time.Since(began)
	rig.RequireEqual(t, k.Master, timed)

	for killed := 0; killed < n; {
		datadir := filepath.Join(k.Dir, fmt.Sprintf("replica-%d", killed))
		rig.CopyTree(t, initial, datadir)
		// Twice in a row now and then: also while it recovers from the first.
		for range 1 + k.random.IntN(2) {
			p := rig.Start(t, k.ReplicaCommand(t, datadir, rig.Port(t), "--until-synced"))
			select {
			case <-time.After(time.Duration(k.random.Int64N(int64(took)))):
			case <-p.Done():
				continue
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(p.Output(), "panic") {
				killed++
			}
		}
		k.Sync(t, 2*time.Minute, datadir)
		rig.RequireEqual(t, k.Master, datadir)
		rig.RemoveTree(t, datadir)
	}
}

// Fault 4, while the chain moves and the replica serves.
func TestKillOfReplicaWhileFollowing(t *testing.T) {
	n := max(2, kills(t)/4)
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	c.ImportUnderCapture(t, time.Minute, f.Path())

	for range n {
		master := c.StartDevMaster(t, 0)
		sender := rig.NewSender(t, f, master)
		replica := c.StartReplica(t, datadir)
		sender.Send(t, 8)
		replica.WaitReady(t, 2*time.Minute)
		for moment := time.Now().Add(time.Duration(random.Int64N(int64(time.Second)))); time.Now().Before(moment); {
			sender.Send(t, 8)
		}
		if err := replica.Kill(); err != nil {
			t.Fatal(err)
		}
		sender.Send(t, 8)
		replica = c.StartReplica(t, datadir)
		replica.WaitReady(t, 2*time.Minute)
		sender.Mined(t, time.Minute)
		rig.SameHead(t, time.Minute, master, replica)
		master.End(t)
		replica.End(t)
		c.Sync(t, time.Minute, datadir)
		rig.RequireEqual(t, c.Master, datadir)
	}
}

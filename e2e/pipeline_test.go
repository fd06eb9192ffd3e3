package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// A long chain imported under capture, then a live developer chain on top of it:
// the replica answers as the master does, and both databases hold the same keys.
func TestReplicaEqualsMasterAfterImportAndLiveChain(t *testing.T) {
	f := rig.Generate(t, longChain(t))
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)

	began := time.Now()
	c.ImportUnderCapture(t, 15*time.Minute, f.Path())
	t.Logf("import under capture took %s", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	c.Sync(t, 15*time.Minute, datadir)
	t.Logf("catching up took %s", time.Since(began).Round(time.Millisecond))
	rig.RequireEqual(t, c.Master, datadir)

	master := c.StartDevMaster(t, 0)
	replica := c.StartReplica(t, datadir)
	sender := rig.NewSender(t, f, master)
	sender.Send(t, 40)
	replica.WaitReady(t, 2*time.Minute)
	// Subscriptions on two nodes begin at one point only while nothing moves.
	sender.Mined(t, time.Minute)
	rig.SameHead(t, time.Minute, master, replica)
	events := watch(t, master.Endpoints, replica.Endpoints)
	sender.Send(t, 40)
	sender.Mined(t, time.Minute)
	rig.SameHead(t, time.Minute, master, replica)
	events.agree(t, 30*time.Second, atLeast{heads: 1, logs: 1})
	settled(t, time.Minute, master, replica)
	requireSameAnswers(t, master.Endpoints, replica.Endpoints)

	master.End(t)
	replica.End(t)
	c.Sync(t, 5*time.Minute, datadir)
	rig.RequireEqual(t, c.Master, datadir)
}

// settled waits until both have indexed what they have: until then geth answers
// eth_syncing with its progress, which is each node's own.
func settled(t *testing.T, limit time.Duration, nodes ...*rig.Node) {
	t.Helper()
	for _, n := range nodes {
		rig.Until(t, limit, func(ctx context.Context) error {
			var syncing any
			if err := harness.Ask(ctx, n.HTTP(), &syncing, "eth_syncing"); err != nil {
				return err
			}
			if syncing != false {
				return fmt.Errorf("%s: eth_syncing: %v", n.Name, syncing)
			}
			return nil
		})
	}
}

// longChain is the size that issue 3 asks for; DROVER_E2E_CHAIN=blocks×txs asks
// for another while one works on a test.
func longChain(t *testing.T) rig.Size {
	t.Helper()
	size := rig.Size{Blocks: 1500, Txs: 200}
	if value := os.Getenv("DROVER_E2E_CHAIN"); value != "" {
		if _, err := fmt.Sscanf(value, "%dx%d", &size.Blocks, &size.Txs); err != nil {
			t.Fatalf("DROVER_E2E_CHAIN=%s: %v", value, err)
		}
	}
	return size
}

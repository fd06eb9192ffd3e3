package kafkae2e

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// Fault 5, its long part: no broker answers, geth goes on and its journals are kept, the replica says that it is stale;
// when the brokers are back everything arrives, once. DROVER_E2E_OUTAGE is how many seconds it lasts at least (1: until the
// replica says so); ten minutes are part of `make soak`.
func TestNothingIsLostInALongOutageOfAllBrokersOnRealKafka(t *testing.T) {
	t.Parallel() // it waits for most of the time
	least := time.Duration(rig.Number(t, "DROVER_E2E_OUTAGE", 1)) * time.Second
	b := newStorm(t, "outage")
	b.start(t)
	b.rises(t, 5)
	b.replica.WaitReady(t, 2*time.Minute)

	b.end(t, b.IDs()...)
	began, heads := time.Now(), b.feeder.heads.Load()
	rig.Until(t, 2*time.Minute, func(ctx context.Context) error {
		if b.replica.Ready(ctx) == nil {
			return errors.New("the replica is ready although it has not heard of its master")
		}
		return nil
	})
	for time.Since(began) < least {
		b.rises(t, 20)
	}
	journals, err := filepath.Glob(filepath.Join(b.Master, "geth", "drover-journals", "*"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s without brokers: geth took %d heads; %d journals kept", time.Since(began).Round(time.Second), b.feeder.heads.Load()-heads, len(journals))
	if b.feeder.heads.Load() == heads || !b.master.Running() || !b.replica.Running() {
		t.Fatalf("geth took %d heads; master runs: %v, replica runs: %v", b.feeder.heads.Load()-heads, b.master.Running(), b.replica.Running())
	}

	b.launch(t, b.IDs()...)
	b.waitReady(t, b.IDs()...)
	back := time.Now()
	b.replica.WaitReady(t, 5*time.Minute)
	t.Logf("the replica is ready %s after the brokers are", time.Since(back).Round(time.Second))
	b.stopFeeding(t)
	rig.SameHead(t, 2*time.Minute, b.master, b.replica)
	b.master.End(t)
	b.replica.End(t)
	if found := b.requireOnce(t); found.batches == 0 {
		t.Errorf("nothing on topic %s", changelog.TopicName(b.Name))
	}
	b.requireEqual(t, b.live)
}

package replica

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// BenchmarkHead measures the replica's share of the lag: from the moment that a block's frames can be read until geth
// has it as its head, one block each 100 ms. Set DROVER_TEST_CHAIN.
func BenchmarkHead(b *testing.B) {
	dir := chainDir(b)
	m := newMaster(b, dir+"/genesis.json")
	datadir := b.TempDir()
	m.copyTo(datadir)
	m.capture()
	runGeth(b, append([]string{"import", "--datadir", m.datadir, "--gcmode", "archive", "--nocompaction"}, append(gethStorage, dir+"/chain.rlp")...)...)
	m.finish()
	var blocks [][]changelog.Entry
	var block []changelog.Entry
	for _, e := range m.log.entries {
		block = append(block, e)
		if e.Frame.Kind != changelog.KindBatch || e.Frame.Parts > 1 {
			continue
		}
		batch, err := chaindata.ParseBatch(e.Frame.Payload)
		if err != nil {
			b.Fatal(err)
		}
		if c := scan(batch, 0); c.headBlock != nil {
			blocks, block = append(blocks, block), nil
		}
	}
	log := newMemLog()
	warm := len(blocks) / 10
	for _, block := range blocks[:warm] {
		log.feed(block...)
	}
	r := startReplica(b, log, datadir, nil)
	var head func() uint64
	eventually(b, time.Minute, "the replica", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if g := r.geth; g != nil && g.head().Number.Uint64() >= uint64(warm-1) {
			head = func() uint64 { return g.head().Number.Uint64() }
			return nil
		}
		return context.DeadlineExceeded
	})
	time.Sleep(time.Second)
	var took []time.Duration
	b.ResetTimer()
	for i := range b.N {
		if warm+i >= len(blocks) {
			break
		}
		time.Sleep(100 * time.Millisecond)
		began, was := time.Now(), head()
		for j := range blocks[warm+i] {
			blocks[warm+i][j].Frame.Time = began
		}
		log.feed(blocks[warm+i]...)
		for head() == was {
			time.Sleep(50 * time.Microsecond)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

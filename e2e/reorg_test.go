package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// reorgs drives a master through the Engine API beside a replica.
type reorgs struct {
	cluster         *cluster
	master, replica *rig.Node
	events          *watched
	known           map[common.Hash]bool
	low             uint64 // the lowest block that heads move above
}

func newReorgs(t *testing.T, f *rig.Chain, trunkLength int) *reorgs {
	t.Helper()
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	trunk := c.Dir + "/trunk.rlp"
	rig.WriteBlocks(t, trunk, f.Blocks[:trunkLength])
	c.ImportUnderCapture(t, 5*time.Minute, trunk)
	r := &reorgs{cluster: c, known: make(map[common.Hash]bool), low: uint64(trunkLength) - 5}
	r.master = c.StartMaster(t)
	r.replica = c.StartReplica(t, datadir, "--ready.max-age", "0")
	r.replica.WaitReady(t, 2*time.Minute)
	rig.SameHead(t, time.Minute, r.master, r.replica)
	r.events = watch(t, r.master.Endpoints, r.replica.Endpoints)
	return r
}

// head makes the last of blocks the head, giving geth those it does not know.
func (r *reorgs) head(t *testing.T, blocks ...*types.Block) {
	t.Helper()
	for _, block := range blocks {
		if r.known[block.Hash()] {
			continue
		}
		if err := r.master.Engine.Insert(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		r.known[block.Hash()] = true
	}
	last := blocks[len(blocks)-1]
	if err := r.master.Engine.Head(t.Context(), last.Hash(), common.Hash{}, common.Hash{}); err != nil {
		t.Fatal(err)
	}
	var head struct{ Hash common.Hash }
	if err := harness.Ask(t.Context(), r.master.HTTP(), &head, "eth_getBlockByNumber", "latest", false); err != nil {
		t.Fatal(err)
	}
	if head.Hash != last.Hash() {
		t.Fatalf("the fault did not fire: the master's head is %s, want %s", head.Hash, last.Hash())
	}
}

// agree checks head, canonical index, logs and subscriptions.
func (r *reorgs) agree(t *testing.T, want atLeast) {
	t.Helper()
	rig.SameHead(t, 30*time.Second, r.master, r.replica)
	r.events.agree(t, 30*time.Second, want)
	var head hexutil.Uint64
	if err := harness.Ask(t.Context(), r.master.HTTP(), &head, "eth_blockNumber"); err != nil {
		t.Fatal(err)
	}
	calls := []harness.Call{
		{Method: "eth_getLogs", Params: []any{map[string]any{"fromBlock": hexutil.EncodeUint64(r.low), "toBlock": "latest"}}},
		{Method: "eth_getBlockByNumber", Params: []any{hexutil.EncodeUint64(uint64(head) + 1), false}},
	}
	for number := r.low; number <= uint64(head); number++ {
		calls = append(calls,
			harness.Call{Method: "eth_getBlockByNumber", Params: []any{hexutil.EncodeUint64(number), true}},
			harness.Call{Method: "eth_getBlockReceipts", Params: []any{hexutil.EncodeUint64(number)}})
	}
	requireSame(t, r.master.Endpoints, r.replica.Endpoints, calls)
}

// finish compares the whole databases.
func (r *reorgs) finish(t *testing.T) {
	t.Helper()
	r.master.End(t)
	r.replica.End(t)
	datadir := r.cluster.Dir + "/replica"
	r.cluster.Sync(t, time.Minute, datadir)
	rig.RequireEqual(t, r.cluster.Master, datadir)
}

func TestReorgSiblingsOfEqualHeight(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	r := newReorgs(t, f, 40)
	parent := f.Blocks[39]
	one, two, three := f.Extend(t, parent, 1, 1), f.Extend(t, parent, 1, 2), f.Extend(t, parent, 1, 3)
	r.head(t, one...)
	r.agree(t, atLeast{heads: 1, logs: 1})
	r.head(t, two...)
	r.agree(t, atLeast{heads: 2, logs: 2, removed: 1})
	r.head(t, three...)
	r.agree(t, atLeast{heads: 3, logs: 3, removed: 2})
	r.finish(t)
}

func TestReorgBackAndForth(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	r := newReorgs(t, f, 40)
	parent := f.Blocks[39]
	a, b := f.Extend(t, parent, 2, 1), f.Extend(t, parent, 3, 2)
	r.head(t, a...)
	r.agree(t, atLeast{heads: 1})
	r.head(t, b...)
	r.agree(t, atLeast{heads: 2, removed: 1})
	r.head(t, a...)
	r.agree(t, atLeast{heads: 3, removed: 2})
	r.head(t, b[:2]...) // not the tip of B, and as high as A
	r.agree(t, atLeast{heads: 4, removed: 3})
	r.head(t, b...)
	r.agree(t, atLeast{heads: 5, removed: 3})
	r.finish(t)
}

func TestReorgOf64Blocks(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	r := newReorgs(t, f, 10)
	parent := f.Blocks[9]
	a, b := f.Extend(t, parent, 64, 1), f.Extend(t, parent, 65, 2)
	for _, block := range a {
		r.head(t, block)
	}
	r.agree(t, atLeast{heads: 64, logs: 64})
	r.head(t, b...)
	r.agree(t, atLeast{heads: 65, logs: 128, removed: 64})
	r.head(t, a...)
	r.agree(t, atLeast{heads: 66, logs: 192, removed: 128})
	r.finish(t)
}

func TestReorgToAnAncestorAndByDebugSetHead(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	r := newReorgs(t, f, 40)
	a := f.Extend(t, f.Blocks[39], 6, 1)
	for _, block := range a {
		r.head(t, block)
	}
	r.agree(t, atLeast{heads: 6})
	r.head(t, a[2]) // the consensus client goes back on its own chain
	r.agree(t, atLeast{heads: 7})
	r.head(t, a...)
	r.agree(t, atLeast{heads: 8})

	if err := harness.Ask(t.Context(), r.master.HTTP(), nil, "debug_setHead", hexutil.EncodeUint64(42)); err != nil {
		t.Fatal(err)
	}
	var number hexutil.Uint64
	if err := harness.Ask(t.Context(), r.master.HTTP(), &number, "eth_blockNumber"); err != nil || number != 42 {
		t.Fatalf("the fault did not fire: the master's head is %d after debug_setHead 42, %v", number, err)
	}
	rig.SameHead(t, 30*time.Second, r.master, r.replica)
	r.known = make(map[common.Hash]bool) // debug_setHead deletes blocks
	b := f.Extend(t, a[1], 5, 2)
	for _, block := range b {
		r.head(t, block)
	}
	rig.Until(t, 30*time.Second, func(ctx context.Context) error {
		var master, replica []types.Log
		query := map[string]any{"fromBlock": hexutil.EncodeUint64(r.low), "toBlock": "latest"}
		if err := harness.Ask(ctx, r.master.HTTP(), &master, "eth_getLogs", query); err != nil {
			return err
		}
		if err := harness.Ask(ctx, r.replica.HTTP(), &replica, "eth_getLogs", query); err != nil {
			return err
		}
		if len(master) == 0 || len(master) != len(replica) {
			return fmt.Errorf("%d and %d logs", len(master), len(replica))
		}
		return nil
	})
	r.agree(t, atLeast{heads: 9})
	r.finish(t)
}

func TestReorgBelowSafeAndWithFinality(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	r := newReorgs(t, f, 40)
	a := f.Extend(t, f.Blocks[39], 8, 1)
	r.head(t, a...)
	if err := r.master.Engine.Head(t.Context(), a[7].Hash(), a[5].Hash(), a[1].Hash()); err != nil {
		t.Fatal(err)
	}
	var want, got struct{ Hash common.Hash }
	for tag, block := range map[string]*types.Block{"safe": a[5], "finalized": a[1]} {
		if err := harness.Ask(t.Context(), r.master.HTTP(), &want, "eth_getBlockByNumber", tag, false); err != nil || want.Hash != block.Hash() {
			t.Fatalf("the master's %s block is %s, want %s, %v", tag, want.Hash, block.Hash(), err)
		}
		// safe comes with heartbeats, every 2 s
		rig.Until(t, 20*time.Second, func(ctx context.Context) error {
			if err := harness.Ask(ctx, r.replica.HTTP(), &got, "eth_getBlockByNumber", tag, false); err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("the replica's %s block is %s, want %s", tag, got.Hash, want.Hash)
			}
			return nil
		})
	}
	b := f.Extend(t, a[3], 6, 2)
	r.head(t, b...)
	r.agree(t, atLeast{heads: 2, removed: 1})
	r.finish(t)
}

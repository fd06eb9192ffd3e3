package kafkae2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

const (
	feedPause = 150 * time.Millisecond
	deepReorg = 64 // blocks, the depth of faults.md's fault 6
)

// feeder plays the consensus client of a geth that is killed and started again: a block, a pause, a block, and now and
// then another branch of up to eight blocks, once of 64.
type feeder struct {
	f      *rig.Chain
	random *rand.Rand
	pause  time.Duration // between blocks

	chain    []*types.Block // from block 1 up to the head
	branches uint64
	deepest  int // reorg so far

	kills   atomic.Int64   // of geth, told before they happen: its errors are expected until the next master comes
	masters chan *rig.Node // one for each kill
	heads   atomic.Int64   // that geth took
	err     error          // how run ended
	done    chan struct{}
}

func newFeeder(f *rig.Chain, seed uint64) *feeder {
	return &feeder{f: f, random: rand.New(rand.NewPCG(seed, 1)), pause: feedPause, masters: make(chan *rig.Node), done: make(chan struct{})}
}

// run feeds until ctx ends. The block at work is finished: the chain ends in geth's head.
func (d *feeder) run(ctx context.Context, master *rig.Node) {
	defer close(d.done)
	whole := context.WithoutCancel(ctx)
	err := error(nil)
	for seen := int64(0); ctx.Err() == nil; {
		if err == nil {
			err = d.step(whole, master)
		}
		switch {
		case err == nil:
			d.heads.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(d.pause): // a consensus client's slot, not a wait
			}
		case d.kills.Load() > seen:
			select {
			case master = <-d.masters:
				seen++
				err = d.rejoin(whole, master)
			case <-ctx.Done():
			}
		default:
			d.err = fmt.Errorf("geth refused a block: %w", err)
			return
		}
	}
	d.err = err
}

// restarted hands over the master that follows a kill.
func (d *feeder) restarted(master *rig.Node) error {
	select {
	case d.masters <- master:
		return nil
	case <-d.done:
		return fmt.Errorf("the feeder has ended: %w", d.err)
	}
}

// step makes a new block geth's head, on the head or on one of the blocks below it.
func (d *feeder) step(ctx context.Context, master *rig.Node) error {
	depth, branch := 0, uint64(0)
	switch {
	case d.deepest < deepReorg && len(d.chain) > deepReorg+deepReorg/2:
		depth = deepReorg
	case len(d.chain) > 10 && d.random.IntN(10) == 0:
		depth = 1 + d.random.IntN(8)
	}
	if depth > 0 {
		d.branches++
		branch = d.branches
	}
	fork := len(d.chain) - depth
	blocks, _, err := d.f.Generator.Extend(d.block(fork), depth+1, branch)
	if err != nil {
		return err
	}
	for _, block := range blocks {
		if err := master.Engine.Insert(ctx, block); err != nil {
			return err
		}
	}
	if err := master.Engine.Head(ctx, blocks[depth].Hash(), common.Hash{}, common.Hash{}); err != nil {
		return err
	}
	d.chain = append(d.chain[:fork:fork], blocks...)
	d.deepest = max(d.deepest, depth)
	return nil
}

func (d *feeder) block(number int) *types.Block {
	if number == 0 {
		return d.f.Generator.Genesis()
	}
	return d.chain[number-1]
}

// rejoin brings a geth that was started again to the head that it had before.
func (d *feeder) rejoin(ctx context.Context, master *rig.Node) error {
	from := len(d.chain)
	for ; from > 0; from-- {
		var have struct{ Hash common.Hash }
		if err := harness.Ask(ctx, master.HTTP(), &have, "eth_getBlockByNumber", hexutil.EncodeUint64(uint64(from)), false); err != nil {
			return err
		}
		if have.Hash == d.block(from).Hash() {
			break
		}
	}
	for _, block := range d.chain[from:] {
		if err := master.Engine.Insert(ctx, block); err != nil {
			return fmt.Errorf("after a kill, from block %d: %w", from, err)
		}
	}
	return master.Engine.Head(ctx, d.block(len(d.chain)).Hash(), common.Hash{}, common.Hash{})
}

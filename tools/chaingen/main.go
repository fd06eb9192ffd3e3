// Command chaingen writes a chain that geth can import: DIR/genesis.json for
// `geth init` and DIR/chain.rlp for `geth import`. The same flags always give
// the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/tools/chaingen/chain"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "chaingen:", err)
		os.Exit(1)
	}
}

func run(args []string, log io.Writer) error {
	var (
		o      chain.Options
		flags  = flag.NewFlagSet("chaingen", flag.ContinueOnError)
		out    = flags.String("out", "", "directory to write genesis.json and chain.rlp to")
		blocks = flags.Int("blocks", 1500, "number of blocks")
	)
	flags.SetOutput(log)
	flags.IntVar(&o.Txs, "txs", 200, "transactions in each block")
	flags.Uint64Var(&o.Seed, "seed", 1, "seed of accounts and transactions")
	flags.Uint64Var(&o.GenesisTime, "genesis-time", chain.DefaultGenesisTime, "genesis timestamp in Unix seconds")
	flags.Uint64Var(&o.BlockTime, "block-time", 10, "seconds between blocks")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || *blocks < 1 || flags.NArg() > 0 {
		return errors.New("usage: chaingen --out DIR [--blocks N] [--txs N] [--seed N]")
	}
	totals := totals{started: time.Now(), want: *blocks, log: log}
	if err := chain.Write(*out, o, *blocks, totals.add); err != nil {
		return err
	}
	totals.report()
	return nil
}

// totals is what the report at the end counts.
type totals struct {
	log                                     io.Writer
	started                                 time.Time
	want, blocks, txs, failed, logs, create int
	bytes, gas                              uint64
	head                                    *types.Block
}

func (t *totals) add(block *types.Block, receipts types.Receipts) {
	t.head = block
	t.blocks++
	t.bytes += block.Size()
	t.gas += block.GasUsed()
	for i, receipt := range receipts {
		t.txs++
		t.logs += len(receipt.Logs)
		if receipt.Status == types.ReceiptStatusFailed {
			t.failed++
		}
		if block.Transactions()[i].To() == nil {
			t.create++
		}
	}
	if t.blocks%250 == 0 {
		fmt.Fprintf(t.log, "block %d of %d, base fee %s, %s\n", t.blocks, t.want, block.BaseFee(), time.Since(t.started).Round(time.Second))
	}
}

func (t *totals) report() {
	fmt.Fprintf(t.log, "blocks %d, transactions %d (%d failed, %d creations), logs %d, gas %d, bytes %d, base fee %s\nhead %d %s, state root %s, took %s\n",
		t.blocks, t.txs, t.failed, t.create, t.logs, t.gas, t.bytes, t.head.BaseFee(),
		t.head.NumberU64(), t.head.Hash(), t.head.Root(), time.Since(t.started).Round(time.Millisecond))
}

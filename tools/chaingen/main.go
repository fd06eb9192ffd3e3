// Command chaingen writes a chain that geth can import: DIR/genesis.json for
// `geth init` and DIR/chain.rlp for `geth import`. The same flags always give
// the same bytes.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethdb/leveldb"

	"github.com/drover-io/drover/tools/chaingen/chain"
)

// step is how many blocks are generated before they are written out.
const step = 16

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "chaingen:", err)
		os.Exit(1)
	}
}

type settings struct {
	out    string
	blocks int
	chain  chain.Options
}

func run(args []string, log io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("chaingen", flag.ContinueOnError)
	flags.SetOutput(log)
	flags.StringVar(&s.out, "out", "", "directory to write genesis.json and chain.rlp to")
	flags.IntVar(&s.blocks, "blocks", 1500, "number of blocks")
	flags.IntVar(&s.chain.Txs, "txs", 200, "transactions in each block")
	flags.Uint64Var(&s.chain.Seed, "seed", 1, "seed of accounts and transactions")
	flags.Uint64Var(&s.chain.GenesisTime, "genesis-time", chain.DefaultGenesisTime, "genesis timestamp in Unix seconds")
	flags.Uint64Var(&s.chain.BlockTime, "block-time", 10, "seconds between blocks")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.out == "" || flags.NArg() > 0 {
		return errors.New("usage: chaingen --out DIR [--blocks N] [--txs N] [--seed N]")
	}
	return s.write(log)
}

// write generates with the states in a temporary LevelDB: those of 1500 blocks
// with 200 transactions take about a gigabyte.
func (s settings) write(log io.Writer) error {
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(s.out, ".states-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	store, err := leveldb.New(scratch, 512, 256, "", false)
	if err != nil {
		return err
	}
	s.chain.Database = rawdb.NewDatabase(store)
	defer s.chain.Database.Close()
	generator, err := chain.New(s.chain)
	if err != nil {
		return err
	}
	if err := s.writeGenesis(generator); err != nil {
		return err
	}
	return s.writeBlocks(generator, log)
}

func (s settings) writeGenesis(generator *chain.Generator) error {
	encoded, err := json.MarshalIndent(generator.Spec(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.out, "genesis.json"), append(encoded, '\n'), 0o644)
}

func (s settings) writeBlocks(generator *chain.Generator, log io.Writer) error {
	path := filepath.Join(s.out, "chain.rlp")
	partial := path + ".partial"
	file, err := os.Create(partial)
	if err != nil {
		return err
	}
	defer file.Close()
	defer os.Remove(partial)
	out := bufio.NewWriterSize(file, 1<<20)
	totals := totals{started: time.Now()}
	parent := generator.Genesis()
	for done := 0; done < s.blocks; {
		blocks, receipts, err := generator.Extend(parent, min(step, s.blocks-done), 0)
		if err != nil {
			return err
		}
		for i, block := range blocks {
			if err := block.EncodeRLP(out); err != nil {
				return fmt.Errorf("writing %s: %w", partial, err)
			}
			totals.add(block, receipts[i])
		}
		done += len(blocks)
		parent = blocks[len(blocks)-1]
		if done%(step*16) == 0 {
			fmt.Fprintf(log, "block %d of %d, base fee %s, %s\n", done, s.blocks, parent.BaseFee(), time.Since(totals.started).Round(time.Second))
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing %s: %w", partial, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	totals.report(log, parent)
	return nil
}

// totals is what the report at the end counts.
type totals struct {
	started                           time.Time
	blocks, txs, failed, logs, create int
	bytes, gas                        uint64
}

func (t *totals) add(block *types.Block, receipts types.Receipts) {
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
}

func (t *totals) report(log io.Writer, head *types.Block) {
	fmt.Fprintf(log, "blocks %d, transactions %d (%d failed, %d creations), logs %d, gas %d, bytes %d, base fee %s\nhead %d %s, state root %s, took %s\n",
		t.blocks, t.txs, t.failed, t.create, t.logs, t.gas, t.bytes, head.BaseFee(),
		head.NumberU64(), head.Hash(), head.Root(), time.Since(t.started).Round(time.Millisecond))
}

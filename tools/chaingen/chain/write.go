package chain

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethdb/leveldb"
)

// Names of the files that Write makes.
const (
	GenesisFile = "genesis.json" // for `geth init`
	BlocksFile  = "chain.rlp"    // for `geth import`
)

// Write generates a chain into dir with the states in a temporary LevelDB: those
// of 1500 blocks with 200 transactions take about a gigabyte. progress, if not
// nil, gets each block. A run that is cut short leaves no BlocksFile.
func Write(dir string, o Options, blocks int, progress func(*types.Block, types.Receipts)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(dir, ".states-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	store, err := leveldb.New(scratch, 512, 256, "", false)
	if err != nil {
		return err
	}
	o.Database = rawdb.NewDatabase(store)
	defer o.Database.Close()
	generator, err := New(o)
	if err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(generator.Spec(), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, GenesisFile), append(encoded, '\n'), 0o644); err != nil {
		return err
	}
	return generator.writeBlocks(filepath.Join(dir, BlocksFile), blocks, progress)
}

func (g *Generator) writeBlocks(path string, n int, progress func(*types.Block, types.Receipts)) error {
	partial := path + ".partial"
	file, err := os.Create(partial)
	if err != nil {
		return err
	}
	defer file.Close()
	defer os.Remove(partial)
	out := bufio.NewWriterSize(file, 1<<20)
	parent := g.Genesis()
	for range n {
		blocks, receipts, err := g.Extend(parent, 1, 0)
		if err != nil {
			return err
		}
		if err := blocks[0].EncodeRLP(out); err != nil {
			return fmt.Errorf("writing %s: %w", partial, err)
		}
		if progress != nil {
			progress(blocks[0], receipts[0])
		}
		parent = blocks[0]
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing %s: %w", partial, err)
	}
	return os.Rename(partial, path)
}

package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethdb/leveldb"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

// Size names a generated chain, which is made once for all tests of a package.
type Size struct{ Blocks, Txs int }

func (s Size) String() string { return fmt.Sprintf("%dx%d", s.Blocks, s.Txs) }

// Chain is a generated chain, also in a file.
type Chain struct {
	Generator *chain.Generator // holds the states, for side branches
	Blocks    []*types.Block
	dir       string
}

var (
	chainsLock sync.Mutex
	chains     = make(map[Size]*Chain)
)

// Generate gives the chain of that size; its first call makes it. Its timestamps end a moment before now, so that its
// head counts as recent.
func Generate(t *testing.T, size Size) *Chain {
	t.Helper()
	chainsLock.Lock()
	defer chainsLock.Unlock()
	if f := chains[size]; f != nil {
		return f
	}
	f := &Chain{dir: Must(os.MkdirTemp("", "drover-chain-"))(t)}
	store := Must(leveldb.New(filepath.Join(f.dir, "states"), 64, 64, "", false))(t)
	f.Generator = Must(chain.New(chain.Options{
		Seed: 1, Txs: size.Txs, BlockTime: 1, GenesisTime: uint64(time.Now().Unix()) - uint64(size.Blocks) - 60,
		Database: rawdb.NewDatabase(store), // in memory, a long chain's states take more than a gigabyte
	}))(t)
	f.Blocks = f.Extend(t, f.Generator.Genesis(), size.Blocks, 0)
	f.write(t)
	chains[size] = f
	return f
}

// GenerateOther is a short chain with another genesis block.
func GenerateOther(t *testing.T) *Chain {
	t.Helper()
	f := &Chain{dir: Workdir(t), Generator: Must(chain.New(chain.Options{Seed: 99, Txs: 5}))(t)}
	f.Blocks = f.Extend(t, f.Generator.Genesis(), 2, 0)
	f.write(t)
	return f
}

func removeChains() {
	for _, f := range chains {
		os.RemoveAll(f.dir)
	}
}

// GenesisPath is a file for `geth init`.
func (f *Chain) GenesisPath() string { return filepath.Join(f.dir, "genesis.json") }

// Path is a file for `geth import`.
func (f *Chain) Path() string { return filepath.Join(f.dir, "chain.rlp") }

func (f *Chain) write(t *testing.T) {
	t.Helper()
	spec := make(map[string]any)
	reader := json.NewDecoder(bytes.NewReader(Must(json.Marshal(f.Generator.Spec()))(t)))
	reader.UseNumber()
	if err := reader.Decode(&spec); err != nil {
		t.Fatal(err)
	}
	// geth before 1.17 wants an entry for each fork; that of Osaka does not differ.
	schedule := spec["config"].(map[string]any)["blobSchedule"].(map[string]any)
	schedule["osaka"] = schedule["prague"]
	text := Must(json.Marshal(spec))(t)
	if err := os.WriteFile(f.GenesisPath(), text, 0o644); err != nil {
		t.Fatal(err)
	}
	WriteBlocks(t, f.Path(), f.Blocks)
}

// WriteBlocks writes a file for `geth import`.
func WriteBlocks(t *testing.T, path string, blocks []*types.Block) {
	t.Helper()
	file := Must(os.Create(path))(t)
	defer file.Close()
	for _, block := range blocks {
		if err := block.EncodeRLP(file); err != nil {
			t.Fatal(err)
		}
	}
}

// Extend makes blocks of a branch; those of branch 0 go on the chain's own way.
func (f *Chain) Extend(t *testing.T, parent *types.Block, n int, branch uint64) []*types.Block {
	t.Helper()
	blocks, _, err := f.Generator.Extend(parent, n, branch)
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// Initialise writes the genesis block into a datadir.
func (f *Chain) Initialise(t *testing.T, geth, datadir string) {
	t.Helper()
	Succeed(t, 2*time.Minute, harness.Command{Name: "geth-init", Path: geth, Args: harness.InitArgs(datadir, f.GenesisPath()), Log: filepath.Dir(datadir)})
}

// Import makes a datadir that geth has imported the whole chain into, without Drover.
func (f *Chain) Import(t *testing.T, datadir string) {
	t.Helper()
	f.Initialise(t, Geth(t), datadir)
	Succeed(t, 10*time.Minute, harness.Command{Name: "geth-import", Path: Geth(t), Args: harness.ImportArgs(datadir, f.Path()), Log: filepath.Dir(datadir)})
}

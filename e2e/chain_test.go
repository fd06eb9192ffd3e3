package e2e

import (
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

var (
	fixtureLock sync.Mutex
	fixtureDirs = make(map[chainSize]string)
)

// chainSize names a generated chain, which is made once for all tests.
type chainSize struct{ blocks, txs int }

// fixture is a generated chain in a file.
type fixture struct {
	size      chainSize
	dir       string
	generator *chain.Generator // holds the states, for side branches
	blocks    []*types.Block
}

var fixtures = make(map[chainSize]*fixture)

// generate gives the chain of that size; its first call makes it. Its
// timestamps end a moment before now, so that its head counts as recent.
func generate(t *testing.T, size chainSize) *fixture {
	t.Helper()
	fixtureLock.Lock()
	defer fixtureLock.Unlock()
	if f := fixtures[size]; f != nil {
		return f
	}
	dir := must(os.MkdirTemp("", "drover-chain-"))(t)
	fixtureDirs[size] = dir
	f := &fixture{size: size, dir: dir}
	store := must(leveldb.New(filepath.Join(dir, "states"), 64, 64, "", false))(t)
	f.generator = must(chain.New(chain.Options{
		Seed: 1, Txs: size.txs, BlockTime: 1, GenesisTime: uint64(time.Now().Unix()) - uint64(size.blocks) - 60,
		Database: rawdb.NewDatabase(store), // in memory, a long chain's states take more than a gigabyte
	}))(t)
	blocks, _, err := f.generator.Extend(f.generator.Genesis(), size.blocks, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.blocks = blocks
	f.write(t)
	fixtures[size] = f
	return f
}

func (f *fixture) genesisPath() string { return filepath.Join(f.dir, "genesis.json") }
func (f *fixture) chainPath() string   { return filepath.Join(f.dir, "chain.rlp") }

func (f *fixture) write(t *testing.T) {
	t.Helper()
	spec := must(json.Marshal(f.generator.Spec()))(t)
	if err := os.WriteFile(f.genesisPath(), spec, 0o644); err != nil {
		t.Fatal(err)
	}
	writeBlocks(t, f.chainPath(), f.blocks)
}

// writeBlocks writes a file for `geth import`.
func writeBlocks(t *testing.T, path string, blocks []*types.Block) {
	t.Helper()
	file := must(os.Create(path))(t)
	defer file.Close()
	for _, block := range blocks {
		if err := block.EncodeRLP(file); err != nil {
			t.Fatal(err)
		}
	}
}

// extend makes blocks of a side branch.
func (f *fixture) extend(t *testing.T, parent *types.Block, n int, branch uint64) []*types.Block {
	t.Helper()
	blocks, _, err := f.generator.Extend(parent, n, branch)
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// initialise writes the genesis block into a datadir.
func (f *fixture) initialise(t *testing.T, datadir string) {
	t.Helper()
	succeed(t, time.Minute, harness.Command{Name: "geth-init", Path: geth(t), Args: harness.InitArgs(datadir, f.genesisPath()), Log: filepath.Dir(datadir)})
}

// imported is a datadir that geth has imported the whole chain into.
func (f *fixture) imported(t *testing.T, datadir string) {
	t.Helper()
	f.initialise(t, datadir)
	succeed(t, 10*time.Minute, harness.Command{Name: "geth-import", Path: geth(t), Args: harness.ImportArgs(datadir, f.chainPath()), Log: filepath.Dir(datadir)})
}

// rpcNode starts a geth that is driven through the Engine API.
func rpcNode(t *testing.T, name, datadir string) (harness.Endpoints, *harness.Engine) {
	t.Helper()
	e := endpoints(t)
	jwt := filepath.Join(filepath.Dir(datadir), name+".jwt")
	secret := must(harness.WriteJWT(jwt))(t)
	p := start(t, harness.Command{Name: name, Path: geth(t), Args: harness.NodeArgs(datadir, jwt, e), Log: filepath.Dir(datadir)})
	if err := harness.Ready(t.Context(), p, e, time.Minute); err != nil {
		t.Fatal(err)
	}
	engine := must(harness.DialEngine(t.Context(), e.EngineURL(), secret))(t)
	t.Cleanup(engine.Close)
	return e, engine
}

func (s chainSize) String() string { return fmt.Sprintf("%dx%d", s.blocks, s.txs) }

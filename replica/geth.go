package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/eth/tracers"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/ethereum/go-ethereum/version"

	// Tracers register themselves. Without the JavaScript ones a request for an unknown tracer ends the process.
	_ "github.com/ethereum/go-ethereum/eth/tracers/js"
	_ "github.com/ethereum/go-ethereum/eth/tracers/native"
)

// gethConfig is what the embedded geth is opened with.
type gethConfig struct {
	datadir            string
	cacheMB            int
	handles            int
	transactionHistory uint64
	logHistory         uint64
	rpcGasCap          uint64
	rpcEVMTimeout      time.Duration
	logger             *slog.Logger
}

// geth is an embedded go-ethereum on the replica's database: without p2p, without endpoints of its own, and without
// anything that makes or imports blocks. It implements chain.
type geth struct {
	stack   *node.Node
	eth     *eth.Ethereum
	apis    []rpc.API
	genesis common.Hash
}

func openGeth(cfg gethConfig) (*geth, error) {
	routeGethLog(cfg.logger)
	key, err := crypto.GenerateKey() // never used; keeps geth from writing a nodekey file
	if err != nil {
		return nil, err
	}
	stack, err := node.New(&node.Config{
		Name:    "geth",
		Version: gethVersion,
		DataDir: cfg.datadir,
		P2P: p2p.Config{
			PrivateKey:  key,
			NoDiscovery: true,
			NoDial:      true,
		},
		DBEngine: "leveldb",
	})
	if err != nil {
		return nil, fmt.Errorf("open geth's datadir %s: %w", cfg.datadir, err)
	}
	g := &geth{stack: stack}
	if err := g.start(cfg); err != nil {
		return nil, errors.Join(err, stack.Close())
	}
	return g, nil
}

func (g *geth) start(cfg gethConfig) error {
	config := gethEthConfig(cfg)
	backend, err := eth.New(g.stack, config)
	if err != nil {
		return fmt.Errorf("open geth on %s: %w", cfg.datadir, err)
	}
	g.eth = backend
	filterSystem := filters.NewFilterSystem(backend.APIBackend, filters.Config{
		LogCacheSize:  config.FilterLogCacheSize,
		LogQueryLimit: config.LogQueryLimit,
		RangeLimit:    config.RangeLimit,
	})
	// eth.Start drives the log index; without endpoints configured the node opens none.
	if err := g.stack.Start(); err != nil {
		return fmt.Errorf("start geth on %s: %w", cfg.datadir, err)
	}
	g.apis = append(backend.APIs(), tracers.APIs(backend.APIBackend)...)
	g.apis = append(g.apis,
		rpc.API{Namespace: "eth", Service: filters.NewFilterAPI(filterSystem)},
		rpc.API{Namespace: "web3", Service: web3API{g.stack.Server().Name}},
	)
	g.genesis = backend.BlockChain().Genesis().Hash()
	return nil
}

func gethEthConfig(cfg gethConfig) *ethconfig.Config {
	config := ethconfig.Defaults
	config.SyncMode = ethconfig.FullSync
	config.StateScheme = rawdb.HashScheme
	config.NoPruning = true
	config.Preimages = true          // as geth in archive mode; some debug methods look keys up
	config.SkipBcVersionCheck = true // openDatabase checks; geth would write the version where `geth import` left none
	config.TransactionHistory = cfg.transactionHistory
	config.LogHistory = cfg.logHistory
	config.SnapshotCache = 0 // the flat state in the database is the master's, as the stream writes it
	// geth's own split of --cache: half to the database, a good part to the trie.
	config.DatabaseCache = cfg.cacheMB / 2
	config.TrieCleanCache = cfg.cacheMB * 15 / 100
	config.TrieDirtyCache = cfg.cacheMB * 10 / 100
	config.DatabaseHandles = cfg.handles
	config.RPCGasCap = cfg.rpcGasCap
	config.RPCEVMTimeout = cfg.rpcEVMTimeout
	config.TxPool.NoLocals = true
	config.TxPool.Journal = ""
	config.EthDiscoveryURLs, config.SnapDiscoveryURLs = nil, nil
	return &config
}

func (g *geth) close() error { return g.stack.Close() }

// Header implements chain.
func (g *geth) Header(hash common.Hash) (uint64, common.Hash, bool) {
	h := g.eth.BlockChain().GetHeaderByHash(hash)
	if h == nil {
		return 0, common.Hash{}, false
	}
	return h.Number.Uint64(), h.ParentHash, true
}

// HasChild implements chain.
func (g *geth) HasChild(number uint64, hash common.Hash) bool {
	for _, child := range rawdb.ReadAllHashes(g.eth.ChainDb(), number+1) {
		if h := g.eth.BlockChain().GetHeader(child, number+1); h != nil && h.ParentHash == hash {
			return true
		}
	}
	return false
}

// SetCanonical implements chain. Everything it writes is in the stream already.
func (g *geth) SetCanonical(hash common.Hash) error {
	block := g.eth.BlockChain().GetBlockByHash(hash)
	if block == nil {
		return fmt.Errorf("%w: head %s is in the stream, its block is not in the database", ErrDiverged, hash)
	}
	if !g.eth.BlockChain().HasState(block.Root()) {
		// geth would execute the block to find its state, with nothing to execute it on.
		return fmt.Errorf("%w: block %d (%s) is in the stream, its state root %s is not in the database; "+
			"is the master an archive node?", ErrDiverged, block.NumberU64(), hash, block.Root())
	}
	if _, err := g.eth.BlockChain().SetCanonical(block); err != nil {
		return fmt.Errorf("set head to block %d (%s): %w", block.NumberU64(), hash, err)
	}
	return nil
}

// SetHead implements chain.
func (g *geth) SetHead(number uint64) error {
	if err := g.eth.BlockChain().SetHead(number); err != nil {
		return fmt.Errorf("rewind to block %d: %w", number, err)
	}
	return nil
}

// SetFinalized implements chain.
func (g *geth) SetFinalized(hash common.Hash) error {
	bc := g.eth.BlockChain()
	if hash == (common.Hash{}) {
		bc.SetFinalized(nil)
		return nil
	}
	header := bc.GetHeaderByHash(hash)
	if header == nil {
		return fmt.Errorf("%w: finalized block %s is in the stream, its header is not in the database", ErrDiverged, hash)
	}
	bc.SetFinalized(header)
	return nil
}

// setSafe moves the safe label to what the master's heartbeat says. A block that is not here (yet) is left out: the
// next heartbeat brings it.
func (g *geth) setSafe(ref *changelog.BlockRef) {
	bc := g.eth.BlockChain()
	current := bc.CurrentSafeBlock()
	if ref == nil || strings.Trim(ref.Hash, "0x") == "" {
		if current != nil {
			bc.SetSafe(nil)
		}
		return
	}
	hash := common.HexToHash(ref.Hash)
	if current != nil && current.Hash() == hash {
		return
	}
	if header := bc.GetHeaderByHash(hash); header != nil {
		bc.SetSafe(header)
	}
}

func (g *geth) head() *types.Header      { return g.eth.BlockChain().CurrentBlock() }
func (g *geth) finalized() *types.Header { return g.eth.BlockChain().CurrentFinalBlock() }
func (g *geth) safe() *types.Header      { return g.eth.BlockChain().CurrentSafeBlock() }

// gethVersion is the version of the embedded geth as geth itself writes it, without a commit.
var gethVersion = fmt.Sprintf("%d.%d.%d-%s", version.Major, version.Minor, version.Patch, version.Meta)

// maxDatabaseVersion is the newest database version that the embedded geth reads.
const maxDatabaseVersion = core.BlockChainVersion

package replica

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/consensus/beacon"
	"github.com/ethereum/go-ethereum/consensus/ethash"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/triedb"
)

// forge makes post-merge blocks on any parent, so that a test can build branches.
type forge struct {
	t       testing.TB
	genesis *core.Genesis
	key     *ecdsa.PrivateKey
	from    common.Address
	db      ethdb.Database
	root    *types.Block
	salt    byte
}

// logger emits a log for each call and writes the block number to storage.
var logger = common.HexToAddress("0x000000000000000000000000000000000000aaaa")

func newForge(t testing.TB) *forge {
	t.Helper()
	zero := uint64(0)
	config := *params.MergedTestChainConfig
	config.ChainID = big.NewInt(4242)
	config.ShanghaiTime, config.CancunTime, config.PragueTime, config.OsakaTime = &zero, nil, nil, nil
	config.BlobScheduleConfig = nil
	key, err := crypto.HexToECDSA("b71c71a67e1177ad4e901695e1b4b9ee17ae16c6668d313eac2f96dbcda3f291")
	if err != nil {
		t.Fatal(err)
	}
	f := &forge{t: t, key: key, from: crypto.PubkeyToAddress(key.PublicKey), db: rawdb.NewMemoryDatabase()}
	f.genesis = &core.Genesis{
		Config: &config, GasLimit: 30_000_000, BaseFee: big.NewInt(params.InitialBaseFee), Difficulty: new(big.Int), Timestamp: 1_700_000_000,
		Alloc: types.GenesisAlloc{
			f.from: {Balance: new(big.Int).Lsh(big.NewInt(1), 100)},
			logger: {Balance: new(big.Int), Code: common.FromHex("43600055" + "43600052" + "602a60206000a1")},
		},
	}
	f.root = f.genesis.MustCommit(f.db, triedb.NewDatabase(f.db, triedb.HashDefaults))
	return f
}

// file writes the genesis for `geth init`.
func (f *forge) file() string {
	content, err := json.Marshal(f.genesis)
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.t.TempDir(), "genesis.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// extend makes n blocks on the parent, each with txs transactions; no two calls give the same blocks.
func (f *forge) extend(parent *types.Block, n, txs int) []*types.Block {
	f.salt++
	salt := f.salt
	blocks, _ := core.GenerateChain(f.genesis.Config, parent, beacon.New(ethash.NewFaker()), f.db, n, func(i int, b *core.BlockGen) {
		b.SetCoinbase(common.Address{salt})
		for j := range txs {
			to := logger
			if j%3 == 2 {
				to = common.Address{0xbb, byte(j), salt}
			}
			tx, err := types.SignNewTx(f.key, b.Signer(), &types.DynamicFeeTx{
				ChainID: f.genesis.Config.ChainID, Nonce: b.TxNonce(f.from), To: &to, Gas: 100_000,
				GasFeeCap: big.NewInt(1e12), GasTipCap: big.NewInt(1), Value: big.NewInt(int64(j % 3 / 2)), Data: []byte{salt},
			})
			if err != nil {
				f.t.Fatal(err)
			}
			b.AddTx(tx)
		}
	})
	return blocks
}

// payload hands blocks to the master, without making them its head.
func (m *master) payload(blocks ...*types.Block) {
	m.t.Helper()
	for _, b := range blocks {
		var status engine.PayloadStatusV1
		data := engine.BlockToExecutableData(b, nil, nil, nil).ExecutionPayload
		if err := m.engine.Call(&status, "engine_newPayloadV2", data); err != nil {
			m.t.Fatal(err)
		}
		if status.Status != engine.VALID {
			m.t.Fatalf("block %d: %s %v", b.NumberU64(), status.Status, status.ValidationError)
		}
	}
}

// head makes a block the master's head.
func (m *master) head(b *types.Block) { m.forkchoice(b, common.Hash{}, common.Hash{}) }

func (m *master) forkchoice(head *types.Block, safe, finalized common.Hash) {
	m.t.Helper()
	var out engine.ForkChoiceResponse
	err := m.engine.Call(&out, "engine_forkchoiceUpdatedV2",
		engine.ForkchoiceStateV1{HeadBlockHash: head.Hash(), SafeBlockHash: safe, FinalizedBlockHash: finalized}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if out.PayloadStatus.Status != engine.VALID {
		m.t.Fatalf("head %d: %s", head.NumberU64(), out.PayloadStatus.Status)
	}
	if h, err := m.eth.HeaderByNumber(context.Background(), nil); err != nil || h.Hash() != head.Hash() {
		m.t.Fatalf("head is %v, not %d (%v)", h.Number, head.NumberU64(), err)
	}
}

// grow adds blocks one by one, each made the head.
func (m *master) grow(blocks ...*types.Block) {
	m.t.Helper()
	for _, b := range blocks {
		m.payload(b)
		m.head(b)
	}
}

func (m *master) setHead(number uint64) {
	m.t.Helper()
	if err := m.rpc.Call(nil, "debug_setHead", hexutil.Uint64(number)); err != nil {
		m.t.Fatal(err)
	}
}

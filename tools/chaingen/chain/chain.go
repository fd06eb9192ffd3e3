// Package chain generates post-merge chains that geth can import: the same
// options always give the same bytes.
//
// A generator keeps the state of every block that it made, so that a side
// branch can leave from any of them; blocks of different branches on one parent
// differ in their transactions and beneficiary.
package chain

import (
	"crypto/ecdsa"
	"fmt"
	"math/rand/v2"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/beacon"
	"github.com/ethereum/go-ethereum/consensus/ethash"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/triedb"
)

// Options say which chain to generate.
type Options struct {
	Seed        uint64         // seed of keys, transactions and beneficiaries
	Txs         int            // transactions in each block
	GenesisTime uint64         // Unix seconds; 0 means DefaultGenesisTime
	BlockTime   uint64         // seconds between blocks; 0 means 10
	Database    ethdb.Database // holds the states; nil means in memory
}

// gasLimit leaves about twice the gas that a block uses on average, which keeps
// the base fee moving around one value.
func (o Options) gasLimit() uint64 { return max(4_000_000, uint64(o.Txs)*100_000) }

// Generator makes blocks. It is not safe for concurrent use.
type Generator struct {
	options   Options
	spec      *core.Genesis
	genesis   *types.Block
	db        ethdb.Database
	keys      []*ecdsa.PrivateKey
	addresses []common.Address
	signer    types.Signer
}

// New returns a generator that has committed the genesis state to its database.
func New(o Options) (*Generator, error) {
	if o.GenesisTime == 0 {
		o.GenesisTime = DefaultGenesisTime
	}
	if o.BlockTime == 0 {
		o.BlockTime = 10
	}
	keys, err := newKeys(o.Seed)
	if err != nil {
		return nil, fmt.Errorf("chain: deriving keys: %w", err)
	}
	g := &Generator{options: o, spec: newGenesis(o, keys), db: o.Database, keys: keys}
	if g.db == nil {
		g.db = rawdb.NewMemoryDatabase()
	}
	for _, key := range keys {
		g.addresses = append(g.addresses, crypto.PubkeyToAddress(key.PublicKey))
	}
	g.signer = types.LatestSigner(g.spec.Config)
	tries := triedb.NewDatabase(g.db, triedb.HashDefaults)
	defer tries.Close()
	if g.genesis, err = g.spec.Commit(g.db, tries, nil); err != nil {
		return nil, fmt.Errorf("chain: committing the genesis state: %w", err)
	}
	return g, nil
}

// Spec is what `geth init` wants, once encoded as JSON.
func (g *Generator) Spec() *core.Genesis { return g.spec }

// Genesis is block 0.
func (g *Generator) Genesis() *types.Block { return g.genesis }

// Key is the private key of sender i, for tests that send transactions of their
// own; i is taken modulo the number of senders.
func (g *Generator) Key(i int) *ecdsa.PrivateKey { return g.keys[i%accounts] }

// Extend makes n blocks on top of parent, which is the genesis block or was
// made by this generator. The blocks depend on the options, on parent and on
// branch alone; branch 0 is the main chain.
func (g *Generator) Extend(parent *types.Block, n int, branch uint64) (blocks []*types.Block, receipts []types.Receipts, err error) {
	// GenerateChain panics on a transaction that cannot stand in a block.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("chain: block on top of %d: %v", parent.NumberU64(), r)
		}
	}()
	for range n {
		// One block at a time: GenerateChain counts withdrawals from where its
		// call began, and a block must not depend on that.
		block, receipt := core.GenerateChain(g.spec.Config, parent, beacon.New(ethash.NewFaker()), g.db, 1,
			func(_ int, b *core.BlockGen) { g.fill(b, parent, branch) })
		blocks, receipts = append(blocks, block...), append(receipts, receipt...)
		parent = block[0]
	}
	return blocks, receipts, nil
}

func (g *Generator) fill(b *core.BlockGen, parent *types.Block, branch uint64) {
	number := b.Number().Uint64()
	random := rand.New(rand.NewPCG(g.options.Seed^branch<<32, number))
	b.OffsetTime(int64(g.options.BlockTime) - 10) // GenerateChain puts 10 seconds between blocks
	b.SetPoS()
	b.SetCoinbase(common.BytesToAddress([]byte{0xfe, byte(branch >> 8), byte(branch), byte(random.IntN(16))}))
	w := &writer{Generator: g, block: b, parent: parent, random: random}
	for i := range g.options.Txs {
		w.transaction(i)
	}
	for range 2 {
		b.AddWithdrawal(&types.Withdrawal{
			Validator: random.Uint64N(1_000_000),
			Address:   g.addresses[random.IntN(accounts)],
			Amount:    1 + random.Uint64N(32_000_000), // in gwei
		})
	}
}

//go:build soak

package kafkae2e

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

// fixture is a generated chain. Its timestamps end a moment before now.
type fixture struct {
	generator *chain.Generator // holds the states, for side branches
	blocks    []*types.Block
	genesis   string // file for geth init
}

func generate(t *testing.T, dir string, blocks, txs int) *fixture {
	t.Helper()
	f := &fixture{genesis: filepath.Join(dir, "genesis.json")}
	f.generator = must(chain.New(chain.Options{
		Seed: 1, Txs: txs, BlockTime: 1, GenesisTime: uint64(time.Now().Unix()) - uint64(blocks) - 60, Database: rawdb.NewMemoryDatabase(),
	}))(t)
	f.blocks = f.extend(t, f.generator.Genesis(), blocks, 0)
	if err := os.WriteFile(f.genesis, must(json.Marshal(f.generator.Spec()))(t), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

// extend makes blocks of a branch.
func (f *fixture) extend(t *testing.T, parent *types.Block, n int, branch uint64) []*types.Block {
	t.Helper()
	blocks, _, err := f.generator.Extend(parent, n, branch)
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// feed makes each block geth's head in turn.
func feed(t *testing.T, master *node, blocks []*types.Block) {
	t.Helper()
	for _, block := range blocks {
		if err := feedOne(t.Context(), master, block); err != nil {
			t.Fatal(err)
		}
	}
}

func feedOne(ctx context.Context, master *node, block *types.Block) error {
	if err := master.engine.Insert(ctx, block); err != nil {
		return err
	}
	return master.engine.Head(ctx, block.Hash(), common.Hash{}, common.Hash{})
}

// sender sends transactions that write storage and emit logs to a running geth.
type sender struct {
	to     harness.Transport
	signer types.Signer
	keys   []*ecdsa.PrivateKey
	nonces []uint64
	random *rand.Rand
	sent   int
}

func newSender(f *fixture, master *node) *sender {
	s := &sender{to: master.HTTP(), signer: types.LatestSigner(f.generator.Spec().Config), random: rand.New(rand.NewPCG(1, 1))}
	for i := range 8 {
		s.keys, s.nonces = append(s.keys, f.generator.Key(i)), append(s.nonces, 0)
	}
	return s
}

// send hands a transaction to geth's pool.
func (s *sender) send(ctx context.Context) error {
	from := s.sent % len(s.keys)
	to := chain.Recorders[s.random.IntN(len(chain.Recorders))]
	data := append(common.BigToHash(big.NewInt(s.random.Int64N(20_000))).Bytes(), common.BigToHash(big.NewInt(s.random.Int64())).Bytes()...)
	tx, err := types.SignNewTx(s.keys[from], s.signer, &types.DynamicFeeTx{
		ChainID: big.NewInt(chain.ChainID), Nonce: s.nonces[from], GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(100 * params.GWei),
		Gas: 150_000, To: &to, Data: data,
	})
	if err != nil {
		return err
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return err
	}
	if err := harness.Ask(ctx, s.to, nil, "eth_sendRawTransaction", hexutil.Bytes(raw)); err != nil {
		return fmt.Errorf("transaction %d: %w", s.sent, err)
	}
	s.nonces[from]++
	s.sent++
	return nil
}

// keepSending sends a transaction every interval until the function it returns is called, which also fails the test
// when one was refused.
func (s *sender) keepSending(t *testing.T, interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
				// The last one is not cut off: it would be unknown whether it counts.
				if err := s.send(context.WithoutCancel(ctx)); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

package e2e

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

// sender sends transactions that write storage and emit logs to a running geth.
type sender struct {
	to     harness.Transport
	signer types.Signer
	keys   []*ecdsa.PrivateKey
	nonces []uint64
	random *rand.Rand
	last   common.Hash
}

func newSender(t *testing.T, f *fixture, master *node) *sender {
	t.Helper()
	s := &sender{to: master.HTTP(), signer: types.LatestSigner(f.generator.Spec().Config), random: rand.New(rand.NewPCG(1, 1))}
	for i := range 8 {
		key := f.generator.Key(i)
		var nonce hexutil.Uint64
		if err := harness.Ask(t.Context(), s.to, &nonce, "eth_getTransactionCount", crypto.PubkeyToAddress(key.PublicKey), "latest"); err != nil {
			t.Fatal(err)
		}
		s.keys, s.nonces = append(s.keys, key), append(s.nonces, uint64(nonce))
	}
	return s
}

// send hands n transactions to geth's pool.
func (s *sender) send(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if err := s.sendOne(t.Context(), i%len(s.keys)); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *sender) sendOne(ctx context.Context, from int) error {
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
	if err := harness.Ask(ctx, s.to, &s.last, "eth_sendRawTransaction", hexutil.Bytes(raw)); err != nil {
		return err
	}
	s.nonces[from]++
	return nil
}

// mined waits until every transaction sent is in a block.
func (s *sender) mined(t *testing.T, limit time.Duration) {
	t.Helper()
	until(t, limit, func(ctx context.Context) error {
		for i, key := range s.keys {
			var nonce hexutil.Uint64
			if err := harness.Ask(ctx, s.to, &nonce, "eth_getTransactionCount", crypto.PubkeyToAddress(key.PublicKey), "latest"); err != nil {
				return err
			}
			if uint64(nonce) != s.nonces[i] {
				return fmt.Errorf("sender %d: %d transactions mined, want %d", i, nonce, s.nonces[i])
			}
		}
		return nil
	})
}

package rig

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

// Sender sends transactions that write storage and emit logs to a running geth.
type Sender struct {
	to     harness.Transport
	signer types.Signer
	keys   []*ecdsa.PrivateKey
	nonces []uint64
	random *rand.Rand
}

// NewSender asks the master where its senders' accounts stand.
func NewSender(t *testing.T, f *Chain, master *Node) *Sender {
	t.Helper()
	s := &Sender{to: master.HTTP(), signer: types.LatestSigner(f.Generator.Spec().Config), random: rand.New(rand.NewPCG(1, 1))}
	for i := range 8 {
		key := f.Generator.Key(i)
		var nonce hexutil.Uint64
		if err := harness.Ask(t.Context(), s.to, &nonce, "eth_getTransactionCount", crypto.PubkeyToAddress(key.PublicKey), "latest"); err != nil {
			t.Fatal(err)
		}
		s.keys, s.nonces = append(s.keys, key), append(s.nonces, uint64(nonce))
	}
	return s
}

// Send hands n transactions to geth's pool.
func (s *Sender) Send(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if err := s.SendOne(t.Context(), i%len(s.keys)); err != nil {
			t.Fatal(err)
		}
	}
}

// SendOne hands one transaction of a sender to geth's pool.
func (s *Sender) SendOne(ctx context.Context, from int) error {
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
		return err
	}
	s.nonces[from]++
	return nil
}

// Mined waits until every transaction sent is in a block.
func (s *Sender) Mined(t *testing.T, limit time.Duration) {
	t.Helper()
	Until(t, limit, func(ctx context.Context) error {
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

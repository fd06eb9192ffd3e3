// Package rpcdiff asks two nodes that hold the same chain the same questions,
// over every transport, and compares their answers byte for byte.
package rpcdiff

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

// sample is what questions are made of: things that stand in the chain.
type sample struct {
	head      uint64
	blocks    []block // genesis, some in the middle, the newest two
	txs       []transaction
	creations []common.Address // contracts that transactions created
	topics    []common.Hash
	random    *rand.Rand
}

type block struct {
	Number       hexutil.Uint64
	Hash         common.Hash
	StateRoot    common.Hash
	Transactions []transaction
}

type transaction struct {
	Hash        common.Hash
	From        common.Address
	To          *common.Address
	Input       hexutil.Bytes
	Type        hexutil.Uint64
	BlockNumber hexutil.Uint64
	BlockHash   common.Hash
}

func (b block) tag() string { return hexutil.EncodeUint64(uint64(b.Number)) }

// newSample reads the chain behind t. The same chain and seed give the same sample.
func newSample(ctx context.Context, t harness.Transport, seed uint64) (*sample, error) {
	s := &sample{random: rand.New(rand.NewPCG(seed, 0))}
	var head hexutil.Uint64
	if err := harness.Ask(ctx, t, &head, "eth_blockNumber"); err != nil {
		return nil, err
	}
	s.head = uint64(head)
	numbers := []uint64{0, 1, s.head}
	if s.head > 0 {
		numbers = append(numbers, s.head-1)
	}
	for range 5 {
		numbers = append(numbers, s.random.Uint64N(s.head+1))
	}
	// A block with every type of transaction, if the chain is a generated one.
	if s.head >= 16 {
		numbers = append(numbers, s.head/2/16*16+16)
	}
	seen := make(map[uint64]bool)
	for _, number := range numbers {
		if seen[number] || number > s.head {
			continue
		}
		seen[number] = true
		var b block
		if err := harness.Ask(ctx, t, &b, "eth_getBlockByNumber", hexutil.EncodeUint64(number), true); err != nil {
			return nil, err
		}
		s.blocks = append(s.blocks, b)
	}
	return s, s.pickTransactions(ctx, t)
}

// pickTransactions takes, from each block, a transaction of each type, one that
// creates, one that failed, and some at random.
func (s *sample) pickTransactions(ctx context.Context, t harness.Transport) error {
	for _, b := range s.blocks {
		var receipts types.Receipts
		if err := harness.Ask(ctx, t, &receipts, "eth_getBlockReceipts", b.Hash); err != nil {
			return err
		}
		if len(receipts) != len(b.Transactions) {
			return fmt.Errorf("block %d has %d transactions and %d receipts", b.Number, len(b.Transactions), len(receipts))
		}
		kinds := make(map[string]bool)
		for i, tx := range b.Transactions {
			kind := fmt.Sprint(tx.Type, tx.To == nil, receipts[i].Status)
			if !kinds[kind] || s.random.IntN(40) == 0 {
				kinds[kind] = true
				s.txs = append(s.txs, tx)
			}
			if tx.To == nil && receipts[i].Status == types.ReceiptStatusSuccessful && len(s.creations) < 4 {
				s.creations = append(s.creations, receipts[i].ContractAddress)
			}
			for _, log := range receipts[i].Logs {
				if len(s.topics) < 6 {
					s.topics = append(s.topics, log.Topics...)
				}
			}
		}
	}
	return nil
}

// addresses are contracts, senders, a fresh account and nobody.
func (s *sample) addresses() []common.Address {
	list := append([]common.Address{
		chain.Recorders[0], chain.Recorders[3], chain.Refuser, chain.Forwarder,
		common.HexToAddress("0x4242424242424242424242424242424242424242"), {},
	}, s.creations...)
	for i, tx := range s.txs {
		if i%9 == 0 {
			list = append(list, tx.From)
			if tx.To != nil {
				list = append(list, *tx.To)
			}
		}
	}
	return list
}

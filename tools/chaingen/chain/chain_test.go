package chain

import (
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
)

func newGenerator(t *testing.T, txs int) *Generator {
	t.Helper()
	g, err := New(Options{Seed: 3, Txs: txs})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func extend(t *testing.T, g *Generator, parent *types.Block, n int, branch uint64) ([]*types.Block, []types.Receipts) {
	t.Helper()
	blocks, receipts, err := g.Extend(parent, n, branch)
	if err != nil {
		t.Fatal(err)
	}
	return blocks, receipts
}

func TestChainHoldsEveryKindOfTransactionAndLog(t *testing.T) {
	g := newGenerator(t, 100)
	blocks, receipts := extend(t, g, g.Genesis(), 16, 0)
	var (
		byType  = make(map[uint8]int)
		topics  = make(map[int]int)
		failed  int
		created int
		wrote   int
	)
	for i, block := range blocks {
		if got := len(block.Transactions()); got != 100 {
			t.Errorf("block %d has %d transactions, want 100", block.NumberU64(), got)
		}
		if len(block.Withdrawals()) != 2 {
			t.Errorf("block %d has %d withdrawals, want 2", block.NumberU64(), len(block.Withdrawals()))
		}
		for j, receipt := range receipts[i] {
			byType[receipt.Type]++
			if receipt.Status == types.ReceiptStatusFailed {
				failed++
			}
			if block.Transactions()[j].To() == nil && receipt.Status == types.ReceiptStatusSuccessful {
				created++
			}
			for _, log := range receipt.Logs {
				topics[len(log.Topics)]++
				if len(log.Data) == 96 && log.Topics[0] == RecordedTopic {
					wrote++
				}
			}
		}
	}
	for kind := range uint8(5) {
		if byType[kind] == 0 {
			t.Errorf("no transaction of type %d", kind)
		}
	}
	for n := 1; n <= 4; n++ {
		if topics[n] == 0 {
			t.Errorf("no log with %d topics", n)
		}
	}
	if failed == 0 || created == 0 || wrote == 0 {
		t.Errorf("failed %d, created %d, wrote %d: none may be zero", failed, created, wrote)
	}
}

func TestSideBranchesDifferAndCanLeaveFromAnyBlock(t *testing.T) {
	g := newGenerator(t, 10)
	trunk, _ := extend(t, g, g.Genesis(), 6, 0)
	left, _ := extend(t, g, trunk[2], 3, 1)
	right, _ := extend(t, g, trunk[2], 3, 2)
	again, _ := extend(t, newGeneratorWith(t, trunk[2], 10), trunk[2], 3, 2)
	rest, _ := extend(t, g, trunk[2], 3, 0)
	if left[0].ParentHash() != trunk[2].Hash() || left[0].Hash() == right[0].Hash() || left[0].Hash() == trunk[3].Hash() {
		t.Error("siblings on one parent are not distinct blocks")
	}
	if rest[2].Hash() != trunk[5].Hash() || again[2].Hash() != right[2].Hash() {
		t.Error("a branch depends on more than the options, its parent and its number")
	}
}

// newGeneratorWith is a fresh generator that holds the state of block.
func newGeneratorWith(t *testing.T, block *types.Block, txs int) *Generator {
	t.Helper()
	g := newGenerator(t, txs)
	extend(t, g, g.Genesis(), int(block.NumberU64()), 0)
	return g
}

func TestTransactionThatCannotStandIsAnError(t *testing.T) {
	g := newGenerator(t, 10)
	blocks, _ := extend(t, g, g.Genesis(), 1, 0)
	stranger, err := New(Options{Seed: 4, Txs: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stranger.Extend(blocks[0], 1, 0); err == nil {
		t.Error("extending a block whose state is absent succeeded")
	}
}

func TestAssembleResolvesLabelsAndOperands(t *testing.T) {
	got := assemble("PUSH2 0x1 @end JUMP ; comment STOP\n end: STOP")
	want := []byte{0x61, 0, 1, 0x61, 0, 7, 0x56, 0x5b, 0}
	if string(got) != string(want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

package statecheck

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/chaindata/statecheck/statetest"
)

// memory is a database; reading it is counted.
type memory struct {
	mu    sync.Mutex
	items map[string][]byte
	read  map[string]bool
}

func newMemory() *memory { return &memory{items: make(map[string][]byte), read: make(map[string]bool)} }

func (m *memory) put(key, value []byte) { m.items[string(key)] = value }

func (m *memory) get(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read[string(key)] = true
	return m.items[string(key)], nil
}

func TestWalkVisitsEveryNodeAndCodeOfTheState(t *testing.T) {
	m := newMemory()
	root := statetest.State(7, m.put)
	counts, err := Walk(t.Context(), m.get, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.read) != len(m.items) {
		t.Fatalf("%d of %d keys were read", len(m.read), len(m.items))
	}
	if counts.Accounts != 60 || counts.Codes != 20 || counts.Slots != 20*12 || counts.Skipped != 0 ||
		counts.Nodes+counts.Codes != uint64(len(m.items)) {
		t.Fatalf("%+v of %d keys", counts, len(m.items))
	}
}

func TestWalkFindsEachKeyThatIsMissingOrDiffers(t *testing.T) {
	m := newMemory()
	root := statetest.State(7, m.put)
	for _, key := range slices.Sorted(maps.Keys(m.items)) {
		good := m.items[key]
		delete(m.items, key)
		var node *NodeError
		if _, err := Walk(t.Context(), m.get, root, Options{Workers: 2}); !errors.As(err, &node) || !bytes.HasSuffix([]byte(key), node.Hash[:]) {
			t.Fatalf("without %x: %v", key, err)
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		m.items[key] = bad
		if _, err := Walk(t.Context(), m.get, root, Options{Workers: 2}); !errors.Is(err, ErrState) {
			t.Fatalf("with a bit of %x flipped: %v", key, err)
		}
		m.items[key] = good
	}
}

func TestAnEmptyStateIsWhole(t *testing.T) {
	m := newMemory()
	if counts, err := Walk(t.Context(), m.get, types.EmptyRootHash, Options{}); err != nil || counts != (Counts{}) {
		t.Fatalf("%+v, %v", counts, err)
	}
	if _, err := Walk(t.Context(), m.get, common.Hash{1}, Options{}); !errors.Is(err, ErrState) {
		t.Fatal(err)
	}
}

func TestASampleIsOfAboutTheSizeAskedFor(t *testing.T) {
	w := &walker{opts: Options{Seed: 42}}
	for _, fraction := range []float64{0.02, 0.3, 0.9} {
		w.limit = uint64(fraction * (1 << 53))
		hits := 0
		for i := range 4096 {
			if w.sampled([]byte{byte(i >> 8), byte(i >> 4 & 15), byte(i & 15)}) {
				hits++
			}
		}
		if got := float64(hits) / 4096; got < fraction*0.7 || got > fraction*1.3 {
			t.Errorf("asked for %v, got %v", fraction, got)
		}
	}
}

package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/rpcdiff"
)

// The comparisons must find nothing where there is nothing, and must find what
// there is: two geths on copies of one database stand in for master and replica.
func TestComparisonsOfGethWithItself(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	dir := workdir(t)
	left, right := filepath.Join(dir, "left"), filepath.Join(dir, "right")
	f.imported(t, left)
	copyTree(t, left, right)
	requireEqual(t, harness.Chaindata(left), harness.Chaindata(right))

	leftEnds, leftEngine := rpcNode(t, "left", left)
	rightEnds, _ := rpcNode(t, "right", right)
	calls := requireSameAnswers(t, leftEnds, rightEnds)

	next := f.extend(t, f.blocks[len(f.blocks)-1], 1, 0)[0]
	if err := leftEngine.Insert(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := leftEngine.Head(t.Context(), next.Hash(), common.Hash{}, common.Hash{}); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, difference := range must(rpcdiff.Compare(t.Context(), leftEnds, rightEnds, calls))(t) {
		found[difference.Transport+" "+difference.Call.Method] = true
	}
	for _, want := range []string{"HTTP eth_blockNumber", "WebSocket eth_blockNumber", "HTTP eth_getBlockByNumber"} {
		if !found[want] {
			t.Errorf("a node that is one block behind was not told apart by %s", want)
		}
	}
}

func TestSubscriptionsOfTwoGethsAgree(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	dir := workdir(t)
	left, right := filepath.Join(dir, "left"), filepath.Join(dir, "right")
	f.imported(t, left)
	copyTree(t, left, right)
	leftEnds, leftEngine := rpcNode(t, "left", left)
	rightEnds, rightEngine := rpcNode(t, "right", right)
	both := watch(t, leftEnds, rightEnds)

	trunk := f.extend(t, f.blocks[59], 4, 0)
	side := f.extend(t, f.blocks[59], 6, 1)
	for _, engine := range []*harness.Engine{leftEngine, rightEngine} {
		for _, block := range side {
			if err := engine.Insert(t.Context(), block); err != nil {
				t.Fatal(err)
			}
		}
		if err := engine.Head(t.Context(), side[5].Hash(), common.Hash{}, common.Hash{}); err != nil {
			t.Fatal(err)
		}
	}
	both.agree(t, 10*time.Second, atLeast{heads: 1, logs: 1, removed: 1})
	if err := leftEngine.Head(t.Context(), trunk[3].Hash(), common.Hash{}, common.Hash{}); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, both.differ)
}

func TestCompareFindsOneChangedOneMissingAndOneExtraKey(t *testing.T) {
	f := generate(t, chainSize{8, 10})
	dir := workdir(t)
	left := filepath.Join(dir, "left")
	f.imported(t, left)
	for name, change := range map[string]func(*leveldb.DB) error{
		"changed": func(db *leveldb.DB) error { return db.Put([]byte("LastHeader"), make([]byte, 32), nil) },
		"missing": func(db *leveldb.DB) error { return db.Delete([]byte("LastFast"), nil) },
		"extra":   func(db *leveldb.DB) error { return db.Put([]byte("nobody knows this"), nil, nil) },
		"local":   func(db *leveldb.DB) error { return db.Put([]byte("drover-position"), []byte{1}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			right := filepath.Join(dir, name)
			copyTree(t, left, right)
			db := must(leveldb.OpenFile(harness.Chaindata(right), nil))(t)
			if err := change(db); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			want := 1
			if name == "local" {
				want = 0
			}
			for _, order := range [][2]string{{left, right}, {right, left}} {
				differences := must(harness.Compare(harness.Chaindata(order[0]), harness.Chaindata(order[1])))(t)
				if differences.Count != want {
					t.Errorf("%d differences, want %d: %s", differences.Count, want, differences)
				}
			}
		})
	}
}

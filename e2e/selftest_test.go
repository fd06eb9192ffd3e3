package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
	"github.com/drover-io/drover/e2e/rpcdiff"
)

// The comparisons must find nothing where there is nothing, and must find what
// there is: two geths on copies of one database stand in for master and replica.
func TestComparisonsOfGethWithItself(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	dir := rig.Workdir(t)
	left, right := filepath.Join(dir, "left"), filepath.Join(dir, "right")
	f.Import(t, left)
	rig.CopyTree(t, left, right)
	rig.RequireEqual(t, left, right)

	leftNode := rig.StartGeth(t, "left", left)
	rightNode := rig.StartGeth(t, "right", right)
	calls := requireSameAnswers(t, leftNode.Endpoints, rightNode.Endpoints)

	next := f.Extend(t, f.Blocks[len(f.Blocks)-1], 1, 0)[0]
	leftNode.Feed(t, next)
	found := make(map[string]bool)
	for _, difference := range rig.Must(rpcdiff.Compare(t.Context(), leftNode.Endpoints, rightNode.Endpoints, calls))(t) {
		found[difference.Transport+" "+difference.Call.Method] = true
	}
	for _, want := range []string{"HTTP eth_blockNumber", "WebSocket eth_blockNumber", "HTTP eth_getBlockByNumber"} {
		if !found[want] {
			t.Errorf("a node that is one block behind was not told apart by %s", want)
		}
	}
}

func TestSubscriptionsOfTwoGethsAgree(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	dir := rig.Workdir(t)
	left, right := filepath.Join(dir, "left"), filepath.Join(dir, "right")
	f.Import(t, left)
	rig.CopyTree(t, left, right)
	leftNode := rig.StartGeth(t, "left", left)
	rightNode := rig.StartGeth(t, "right", right)
	both := watch(t, leftNode.Endpoints, rightNode.Endpoints)

	trunk := f.Extend(t, f.Blocks[59], 4, 0)
	side := f.Extend(t, f.Blocks[59], 6, 1)
	for _, engine := range []*harness.Engine{leftNode.Engine, rightNode.Engine} {
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
	if err := leftNode.Engine.Head(t.Context(), trunk[3].Hash(), common.Hash{}, common.Hash{}); err != nil {
		t.Fatal(err)
	}
	rig.Until(t, 10*time.Second, both.differ)
}

func TestCompareFindsOneChangedOneMissingAndOneExtraKey(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 8, Txs: 10})
	dir := rig.Workdir(t)
	left := filepath.Join(dir, "left")
	f.Import(t, left)
	for name, change := range map[string]func(*leveldb.DB) error{
		"changed": func(db *leveldb.DB) error { return db.Put([]byte("LastHeader"), make([]byte, 32), nil) },
		"missing": func(db *leveldb.DB) error { return db.Delete([]byte("LastFast"), nil) },
		"extra":   func(db *leveldb.DB) error { return db.Put([]byte("nobody knows this"), nil, nil) },
		"local":   func(db *leveldb.DB) error { return db.Put([]byte("drover-position"), []byte{1}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			right := filepath.Join(dir, name)
			rig.CopyTree(t, left, right)
			db := rig.Must(leveldb.OpenFile(harness.Chaindata(right), nil))(t)
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
				differences := rig.Must(harness.Compare(harness.Chaindata(order[0]), harness.Chaindata(order[1])))(t)
				if differences.Count != want {
					t.Errorf("%d differences, want %d: %s", differences.Count, want, differences)
				}
			}
		})
	}
}

package gethcompat

import (
	"fmt"
	"math/big"
	"math/rand"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/ethdb/leveldb"

	"github.com/drover-io/drover/chaindata"
)

func open(t *testing.T, dir string) ethdb.Database {
	t.Helper()
	kv, err := leveldb.New(dir, 16, 16, "", false)
	if err != nil {
		t.Fatal(err)
	}
	db, err := rawdb.Open(kv, rawdb.OpenOptions{Ancient: filepath.Join(dir, "ancient")})
	if err != nil {
		kv.Close()
		t.Fatal(err)
	}
	return db
}

// writeBlock adds a block that carries some bulk, as geth does: the data in one batch, then the head markers.
func writeBlock(t *testing.T, db ethdb.Database, parent *types.Header, rng *rand.Rand) *types.Header {
	t.Helper()
	h := &types.Header{Number: new(big.Int), Difficulty: new(big.Int), Extra: make([]byte, rng.Intn(2000))}
	rng.Read(h.Extra)
	if parent != nil {
		h.ParentHash, h.Number = parent.Hash(), new(big.Int).Add(parent.Number, big.NewInt(1))
	}
	block := types.NewBlockWithHeader(h)
	batch := db.NewBatch()
	rawdb.WriteBlock(batch, block)
	rawdb.WriteReceipts(batch, block.Hash(), block.NumberU64(), nil)
	if err := batch.Write(); err != nil {
		t.Error(err)
	}
	batch.Reset()
	rawdb.WriteCanonicalHash(batch, block.Hash(), block.NumberU64())
	rawdb.WriteHeadHeaderHash(batch, block.Hash())
	rawdb.WriteHeadBlockHash(batch, block.Hash())
	if err := batch.Write(); err != nil {
		t.Error(err)
	}
	return h
}

func TestCopyMadeWhileBlocksAreFrozenHasEachBlock(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "chaindata")
	db := open(t, dir)
	freezer := db.(interface{ Freeze() error })
	rng := rand.New(rand.NewSource(1))
	var head atomic.Uint64
	h := writeBlock(t, db, nil, rng)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			time.Sleep(100 * time.Microsecond) // keeps the chain short enough to read all of it 20 times
			h = writeBlock(t, db, h, rng)
			head.Store(h.Number.Uint64())
			if i%50 == 0 {
				rawdb.WriteFinalizedBlockHash(db, h.ParentHash)
				if err := freezer.Freeze(); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	frozenInCopies := make(map[uint64]bool)
	for i := range 20 {
		for at := head.Load(); head.Load() < at+20; {
			if t.Failed() {
				break
			}
		}
		copied := filepath.Join(base, fmt.Sprint("copy", i))
		if _, err := chaindata.Copy(t.Context(), dir, copied, chaindata.CopyOptions{}); err != nil {
			t.Error(err)
			break
		}
		frozenInCopies[checkChain(t, copied)] = true
	}
	close(stop)
	<-done
	db.Close()
	if len(frozenInCopies) < 3 {
		t.Fatalf("nothing was frozen meanwhile: %v", frozenInCopies)
	}
}

// checkChain opens a copy with geth's code, repair included, and reads each block up to the head.
func checkChain(t *testing.T, dir string) (frozen uint64) {
	t.Helper()
	db := open(t, dir)
	defer db.Close()
	hash := rawdb.ReadHeadBlockHash(db)
	number, ok := rawdb.ReadHeaderNumber(db, hash)
	if !ok {
		t.Errorf("head block %x has no number", hash)
		return 0
	}
	for n := uint64(0); n <= number; n++ {
		hash := rawdb.ReadCanonicalHash(db, n)
		if block := rawdb.ReadBlock(db, hash, n); block == nil || block.Hash() != hash {
			t.Errorf("block %d of %d is not in the copy", n, number)
			return 0
		}
		if rawdb.ReadReceiptsRLP(db, hash, n) == nil {
			t.Errorf("receipts of block %d of %d are not in the copy", n, number)
			return 0
		}
	}
	frozen, err := db.Ancients()
	if err != nil {
		t.Error(err)
	}
	t.Logf("head %d, %d frozen", number, frozen)
	return frozen
}

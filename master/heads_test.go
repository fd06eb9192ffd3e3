package master

import (
	"bytes"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/chaindata"
)

func headerOf(t testing.TB, number, time uint64) (key, value []byte, hash [32]byte) {
	t.Helper()
	header := &types.Header{
		Number: new(big.Int).SetUint64(number), Time: time, Difficulty: big.NewInt(0), Extra: bytes.Repeat([]byte{1}, 100),
		BaseFee: big.NewInt(7),
	}
	value, err := rlp.EncodeToBytes(header)
	if err != nil {
		t.Fatal(err)
	}
	hash = header.Hash()
	key = append([]byte("h"), new(big.Int).SetUint64(number).FillBytes(make([]byte, 8))...)
	return append(key, hash[:]...), value, hash
}

func batchOf(t testing.TB, puts ...[]byte) chaindata.Batch {
	t.Helper()
	b := new(leveldb.Batch)
	for i := 0; i < len(puts); i += 2 {
		b.Put(puts[i], puts[i+1])
	}
	record := append(make([]byte, 12), b.Dump()...)
	record[8] = byte(len(puts) / 2)
	batch, err := chaindata.ParseBatch(record)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func TestHeadComesFromTheCapturedMarkers(t *testing.T) {
	tracker := newHeadTracker()
	keyA, valueA, hashA := headerOf(t, 5, 1_700_000_000)
	keyB, valueB, hashB := headerOf(t, 6, 1_700_000_012)
	if head := tracker.observe(batchOf(t, keyA, valueA, keyB, valueB)); head != nil {
		t.Errorf("headers alone set head %+v", head)
	}
	for _, step := range []struct {
		hash   [32]byte
		number uint64
		time   uint64
	}{{hashB, 6, 1_700_000_012}, {hashA, 5, 1_700_000_000}, {hashB, 6, 1_700_000_012}} {
		head := tracker.observe(batchOf(t, []byte("LastBlock"), step.hash[:]))
		if head == nil || head.Number != step.number || head.Time != step.time || head.Hash != hexHash(step.hash[:]) {
			t.Errorf("got %+v, want block %d at %d", head, step.number, step.time)
		}
	}
	unknown := [32]byte{1}
	if head := tracker.observe(batchOf(t, []byte("LastBlock"), unknown[:])); head == nil || head.Hash != "" {
		t.Errorf("a head whose header did not come by: got %+v, want an empty one", head)
	}
	genesis := append(append([]byte("h"), make([]byte, 8)...), 'n')
	tracker.observe(batchOf(t, genesis, hashA[:]))
	if tracker.genesis != hexHash(hashA[:]) {
		t.Errorf("genesis %q", tracker.genesis)
	}
}

func TestRememberedHeadersAreBounded(t *testing.T) {
	tracker := newHeadTracker()
	for i := range uint64(3 * rememberedHeaders) {
		key, value, _ := headerOf(t, i, i)
		tracker.observe(batchOf(t, key, value))
	}
	if len(tracker.headers) != rememberedHeaders {
		t.Errorf("%d headers are kept", len(tracker.headers))
	}
	_, _, last := headerOf(t, 3*rememberedHeaders-1, 3*rememberedHeaders-1)
	if head := tracker.observe(batchOf(t, []byte("LastBlock"), last[:])); head.Number != 3*rememberedHeaders-1 {
		t.Errorf("the newest header is forgotten: %+v", head)
	}
}

func FuzzHeaderTime(f *testing.F) {
	_, value, _ := headerOf(f, 5, 1_700_000_000)
	f.Add(value)
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		got := headerTime(data)
		var header types.Header
		if rlp.DecodeBytes(data, &header) == nil && got != header.Time {
			t.Errorf("got %d, go-ethereum reads %d", got, header.Time)
		}
	})
}

package gethcompat

import (
	"bytes"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"

	"github.com/drover-io/drover/chaindata"
)

// TestClassifyKnowsWhatGethWrites lets geth's own accessors write, and looks at the keys.
func TestClassifyKnowsWhatGethWrites(t *testing.T) {
	hash := common.HexToHash("0x1122334455667788990011223344556677889900112233445566778899001122")
	tx := types.NewTx(&types.LegacyTx{Value: big.NewInt(1), V: big.NewInt(27), R: big.NewInt(1), S: big.NewInt(1)})
	block := types.NewBlockWithHeader(&types.Header{Number: big.NewInt(77), Difficulty: new(big.Int)}).
		WithBody(types.Body{Transactions: types.Transactions{tx}})
	for name, c := range map[string]struct {
		write  func(db *memory)
		kind   chaindata.KeyKind
		number uint64
		hash   []byte
	}{
		"header":       {func(db *memory) { rawdb.WriteHeader(db.without("H"), block.Header()) }, chaindata.Header, 77, block.Hash().Bytes()},
		"number":       {func(db *memory) { rawdb.WriteHeaderNumber(db, hash, 77) }, chaindata.HeaderNumber, 0, hash[:]},
		"canonical":    {func(db *memory) { rawdb.WriteCanonicalHash(db, hash, 77) }, chaindata.CanonicalHash, 77, nil},
		"body":         {func(db *memory) { rawdb.WriteBody(db, hash, 77, block.Body()) }, chaindata.Body, 77, hash[:]},
		"receipts":     {func(db *memory) { rawdb.WriteReceipts(db, hash, 77, nil) }, chaindata.Receipts, 77, hash[:]},
		"lookup":       {func(db *memory) { rawdb.WriteTxLookupEntriesByBlock(db, block) }, chaindata.TxLookup, 0, tx.Hash().Bytes()},
		"trie node":    {func(db *memory) { rawdb.WriteLegacyTrieNode(db, hash, []byte{1}) }, chaindata.TrieNode, 0, hash[:]},
		"code":         {func(db *memory) { rawdb.WriteCode(db, hash, []byte{1}) }, chaindata.Code, 0, hash[:]},
		"preimage":     {func(db *memory) { rawdb.WritePreimages(db, map[common.Hash][]byte{hash: {1}}) }, chaindata.Preimage, 0, hash[:]},
		"head block":   {func(db *memory) { rawdb.WriteHeadBlockHash(db, hash) }, chaindata.HeadBlock, 0, nil},
		"head header":  {func(db *memory) { rawdb.WriteHeadHeaderHash(db, hash) }, chaindata.HeadHeader, 0, nil},
		"head fast":    {func(db *memory) { rawdb.WriteHeadFastBlockHash(db, hash) }, chaindata.HeadFast, 0, nil},
		"finalized":    {func(db *memory) { rawdb.WriteFinalizedBlockHash(db, hash) }, chaindata.Finalized, 0, nil},
		"version":      {func(db *memory) { rawdb.WriteDatabaseVersion(db, 9) }, chaindata.DatabaseVersion, 0, nil},
		"config":       {func(db *memory) { rawdb.WriteChainConfig(db, hash, params.AllDevChainProtocolChanges) }, chaindata.ChainConfig, 0, hash[:]},
		"genesis":      {func(db *memory) { rawdb.WriteGenesisStateSpec(db, hash, []byte{1}) }, chaindata.GenesisState, 0, hash[:]},
		"index tail":   {func(db *memory) { rawdb.WriteTxIndexTail(db, 9) }, chaindata.TxIndexTail, 0, nil},
		"path account": {func(db *memory) { rawdb.WriteAccountTrieNode(db, []byte{1, 15}, []byte{1}) }, chaindata.PathTrieNode, 0, nil},
		"path root":    {func(db *memory) { rawdb.WriteAccountTrieNode(db, nil, []byte{1}) }, chaindata.PathTrieNode, 0, nil},
		"path storage": {func(db *memory) { rawdb.WriteStorageTrieNode(db, hash, []byte{1, 15}, []byte{1}) }, chaindata.PathTrieNode, 0, nil},
		"state id":     {func(db *memory) { rawdb.WriteStateID(db, hash, 9) }, chaindata.PathState, 0, hash[:]},
		"last state":   {func(db *memory) { rawdb.WritePersistentStateID(db, 9) }, chaindata.PathState, 0, nil},
		"trie journal": {func(db *memory) { rawdb.WriteTrieJournal(db, []byte{1}) }, chaindata.PathState, 0, nil},
		"log range":    {func(db *memory) { rawdb.WriteFilterMapsRange(db, rawdb.FilterMapsRange{}) }, chaindata.LogIndex, 0, nil},
		"log pointer":  {func(db *memory) { rawdb.WriteBlockLvPointer(db, 5, 7) }, chaindata.LogIndex, 0, nil},
		"unclean":      {func(db *memory) { rawdb.PushUncleanShutdownMarker(db) }, chaindata.UncleanShutdown, 0, nil},
		"flat account": {func(db *memory) { rawdb.WriteAccountSnapshot(db, hash, []byte{1}) }, chaindata.FlatState, 0, hash[:]},
		"flat slot":    {func(db *memory) { rawdb.WriteStorageSnapshot(db, hash, hash, []byte{1}) }, chaindata.FlatState, 0, nil},
		"flat root":    {func(db *memory) { rawdb.WriteSnapshotRoot(db, hash) }, chaindata.FlatState, 0, nil},
		"skeleton":     {func(db *memory) { rawdb.WriteSkeletonHeader(db, block.Header()) }, chaindata.Skeleton, 77, nil},
	} {
		t.Run(name, func(t *testing.T) {
			db := &memory{KeyValueStore: rawdb.NewMemoryDatabase()}
			c.write(db)
			if len(db.keys) == 0 {
				t.Fatal("geth wrote nothing")
			}
			for _, key := range db.keys {
				kind, number, hash := chaindata.Classify(key)
				if kind != c.kind || number != c.number || !bytes.Equal(hash, c.hash) {
					t.Errorf("%q: %v, %d, %x; want %v, %d, %x", key, kind, number, hash, c.kind, c.number, c.hash)
				}
			}
		})
	}
}

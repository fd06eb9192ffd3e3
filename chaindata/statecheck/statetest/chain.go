// Package statetest makes up a chain whose database follows from the number of blocks alone: real headers and a real state
// trie with storage and code, and besides them keys that are written over and deleted, so that LevelDB compacts.
package statetest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/trie"
	"github.com/holiman/uint256"
)

// Op is a put, or a delete where Value is nil.
type Op struct{ Key, Value []byte }

const (
	accounts = 60
	slots    = 12
	filler   = 400 // keys that blocks write over
)

// Block returns what block n writes, in one batch, and its header. Block 0 is the genesis.
func Block(n uint64) (ops []Op, header *types.Header) {
	put := func(key, value []byte) { ops = append(ops, Op{key, value}) }
	root := State(n, put)
	header = &types.Header{
		ParentHash: crypto.Keccak256Hash([]byte("parent"), number(n)), UncleHash: types.EmptyUncleHash, Root: root,
		TxHash: types.EmptyTxsHash, ReceiptHash: types.EmptyReceiptsHash, Difficulty: new(big.Int),
		Number: new(big.Int).SetUint64(n), GasLimit: 30_000_000, Time: 1_700_000_000 + 12*n,
	}
	blob, err := rlp.EncodeToBytes(header)
	if err != nil {
		panic(err)
	}
	hash := header.Hash()
	put(append(append([]byte("h"), number(n)...), 'n'), hash[:])
	put(append(append([]byte("h"), number(n)...), hash[:]...), blob)
	put(append([]byte("H"), hash[:]...), number(n))
	for i := range uint64(20) {
		key := fmt.Appendf(nil, "filler-%04d", (n*20+i)*7919%filler)
		if (n+i)%17 == 0 {
			ops = append(ops, Op{Key: key})
			continue
		}
		value := make([]byte, 100+(n*i)%900)
		for at := 0; at < len(value); at += 32 {
			copy(value[at:], crypto.Keccak256(number(n), number(i), number(uint64(at))))
		}
		put(key, value)
	}
	put([]byte("DatabaseVersion"), []byte{9})
	for _, key := range []string{"LastHeader", "LastFast", "LastBlock"} {
		put([]byte(key), hash[:])
	}
	return ops, header
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// State puts all trie nodes and codes of block n's state and returns its root. From block to block one account changes.
func State(n uint64, put func(key, value []byte)) common.Hash {
	items := make(map[string][]byte, accounts)
	for i := range uint64(accounts) {
		a := types.StateAccount{Nonce: i, Balance: uint256.NewInt(1), Root: types.EmptyRootHash, CodeHash: types.EmptyCodeHash[:]}
		if back := (n + accounts - i) % accounts; back <= n { // the last block whose number is i modulo accounts
			a.Balance = uint256.NewInt(1 + n - back)
		}
		if i%3 == 0 {
			code := fmt.Appendf(nil, "code of contract %d", i)
			a.CodeHash = crypto.Keccak256(code)
			put(append([]byte("c"), a.CodeHash...), code)
			a.Root = storage(i, put)
		}
		blob, err := rlp.EncodeToBytes(&a)
		if err != nil {
			panic(err)
		}
		items[string(crypto.Keccak256(number(i)))] = blob
	}
	return build(items, put)
}

// storage puts a contract's storage, which never changes.
func storage(account uint64, put func(key, value []byte)) common.Hash {
	made := storages()[account]
	for _, op := range made.ops {
		put(op.Key, op.Value)
	}
	return made.root
}

type storageTrie struct {
	root common.Hash
	ops  []Op
}

var storages = sync.OnceValue(func() map[uint64]storageTrie {
	all := make(map[uint64]storageTrie)
	for account := uint64(0); account < accounts; account += 3 {
		items := make(map[string][]byte, slots)
		for i := range uint64(slots) {
			value, err := rlp.EncodeToBytes(crypto.Keccak256(number(account), number(i)))
			if err != nil {
				panic(err)
			}
			items[string(crypto.Keccak256([]byte("slot"), number(i)))] = value
		}
		var made storageTrie
		made.root = build(items, func(key, value []byte) { made.ops = append(made.ops, Op{key, value}) })
		all[account] = made
	}
	return all
})

// build puts the nodes of a trie by their hashes, as the hash scheme has them.
func build(items map[string][]byte, put func(key, value []byte)) common.Hash {
	t := trie.NewStackTrie(func(_ []byte, hash common.Hash, blob []byte) {
		put(hash[:], append([]byte{}, blob...))
	})
	for _, key := range slices.Sorted(maps.Keys(items)) {
		if err := t.Update([]byte(key), items[key]); err != nil {
			panic(err)
		}
	}
	return t.Hash()
}

package chaindata

import (
	"bytes"
	"encoding/binary"
)

// KeyKind says what geth keeps under a key.
type KeyKind uint8

// Kinds of keys, after go-ethereum v1.17.7 core/rawdb/schema.go.
const (
	Other           KeyKind = iota
	Header                  // h + number + hash
	CanonicalHash           // h + number + n
	HeaderNumber            // H + hash
	Body                    // b + number + hash
	Receipts                // r + number + hash
	AccessList              // j + number + hash
	TxLookup                // l + transaction hash
	TrieNode                // 32 bytes: a node of the hash scheme, by its hash
	Code                    // c + code hash
	Preimage                // secure-key- + hash
	HeadBlock               // LastBlock
	HeadHeader              // LastHeader
	HeadFast                // LastFast
	Finalized               // LastFinalized
	DatabaseVersion         // DatabaseVersion
	ChainConfig             // ethereum-config- + genesis hash
	GenesisState            // ethereum-genesis- + genesis hash
	TxIndexTail             // TransactionIndexTail
	Skeleton                // S + number, SkeletonSyncStatus
	SnapSync                // TrieSync, SnapSyncStatus, LastPivot
	FlatState               // a + account, o + account + slot, and the Snapshot… markers
	PathTrieNode            // A + path, O + account + path: the path scheme's nodes
	PathState               // L + root, LastStateID, TrieJournal, m… and v…: the path scheme's other keys
	LogIndex                // fm-…, and the older B… and iB…
	UncleanShutdown         // unclean-shutdown
	BadBlock                // InvalidBlock
	Clique                  // clique-…
	Position                // drover-position
	Void                    // drover-void, see VoidKey
	kinds
)

var kindNames = [kinds]string{
	"other", "header", "canonical hash", "header number", "body", "receipts", "access list", "tx lookup", "trie node", "code",
	"preimage", "head block", "head header", "head fast", "finalized", "database version", "chain config", "genesis state",
	"tx index tail", "skeleton", "snap sync", "flat state", "path trie node", "path state", "log index", "unclean shutdown",
	"bad block", "clique", "position", "void",
}

// String is the kind in words.
func (k KeyKind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return kindNames[Other]
}

var wholeKeys = map[string]KeyKind{
	"LastBlock": HeadBlock, "LastHeader": HeadHeader, "LastFast": HeadFast, "LastFinalized": Finalized,
	"DatabaseVersion": DatabaseVersion, "TransactionIndexTail": TxIndexTail, "FastTransactionLookupLimit": TxIndexTail,
	"SkeletonSyncStatus": Skeleton, "TrieSync": SnapSync, "SnapSyncStatus": SnapSync, "LastPivot": SnapSync,
	"SnapshotDisabled": FlatState, "SnapshotRoot": FlatState, "SnapshotJournal": FlatState, "SnapshotGenerator": FlatState,
	"SnapshotRecovery": FlatState, "SnapshotSyncStatus": FlatState,
	"LastStateID": PathState, "TrieJournal": PathState, "LastStateHistoryIndex": PathState, "LastTrienodeHistoryIndex": PathState,
	"unclean-shutdown": UncleanShutdown, "InvalidBlock": BadBlock, "drover-position": Position, "drover-void": Void,
}

var longPrefixes = []struct {
	prefix []byte
	kind   KeyKind
}{
	{[]byte("fm-"), LogIndex},
	{[]byte("iB"), LogIndex},
	{[]byte("secure-key-"), Preimage},
	{[]byte("ethereum-config-"), ChainConfig},
	{[]byte("ethereum-genesis-"), GenesisState},
	{[]byte("clique-"), Clique},
	{[]byte("verkle-transition-state-"), PathState},
}

// Classify reads a key by geth's schema. number is the block's, where the key has one. hash is the 32 bytes in the key
// (of a block, transaction, trie node, code, …), a slice into key, or nil. A key of exactly 32 bytes is a trie node: no
// other key of geth's has that length in a hash-scheme database. It allocates nothing.
func Classify(key []byte) (kind KeyKind, number uint64, hash []byte) {
	if len(key) == 32 {
		return TrieNode, 0, key
	}
	if len(key) == 0 {
		return Other, 0, nil
	}
	switch len(key) {
	case 33:
		if kind := hashKeyKind(key[0]); kind != Other {
			return kind, 0, key[1:]
		}
	case 41:
		if kind := blockKeyKind(key[0]); kind != Other {
			return kind, binary.BigEndian.Uint64(key[1:]), key[9:]
		}
	case 10:
		if key[0] == 'h' && key[9] == 'n' {
			return CanonicalHash, binary.BigEndian.Uint64(key[1:]), nil
		}
	case 9:
		if key[0] == 'S' {
			return Skeleton, binary.BigEndian.Uint64(key[1:]), nil
		}
	}
	if kind, ok := wholeKeys[string(key)]; ok {
		return kind, 0, nil
	}
	for _, p := range longPrefixes {
		if bytes.HasPrefix(key, p.prefix) {
			if rest := key[len(p.prefix):]; len(rest) == 32 {
				hash = rest
			}
			return p.kind, 0, hash
		}
	}
	return prefixKind(key), 0, nil
}

func hashKeyKind(prefix byte) KeyKind {
	switch prefix {
	case 'H':
		return HeaderNumber
	case 'l':
		return TxLookup
	case 'c':
		return Code
	case 'a':
		return FlatState
	case 'L':
		return PathState
	}
	return Other
}

func blockKeyKind(prefix byte) KeyKind {
	switch prefix {
	case 'h':
		return Header
	case 'b':
		return Body
	case 'r':
		return Receipts
	case 'j':
		return AccessList
	}
	return Other
}

// prefixKind tells the kinds whose keys vary in length.
func prefixKind(key []byte) KeyKind {
	switch n := len(key); {
	case key[0] == 'A' && n <= 64 && nibbles(key[1:]):
		return PathTrieNode
	case key[0] == 'O' && n >= 33 && n <= 96 && nibbles(key[33:]):
		return PathTrieNode
	case key[0] == 'o' && n == 65:
		return FlatState
	case key[0] == 'B' && n == 43:
		return LogIndex
	case key[0] == 'm' && n >= 2 && (key[1] == 'a' || key[1] == 's' || key[1] == 't' || key[1] == 'b'):
		return PathState
	case key[0] == 'v' && n > 1 && prefixKind(key[1:]) == PathTrieNode:
		return PathState
	}
	return Other
}

// nibbles tells whether all bytes are hex digits of a trie path, as geth keeps it (one byte each, 0 to 15).
func nibbles(path []byte) bool {
	for _, c := range path {
		if c > 15 {
			return false
		}
	}
	return true
}

package replica

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
)

// The parts of geth's key schema (core/rawdb/schema.go, v1.17.7) that the replica reacts to. The lengths keep them
// apart from trie nodes, whose keys are 32 bytes of hash.
const (
	blockKeyLen     = 1 + 8 + 32 // 'h', 'b', 'r' or 'j', number, hash
	canonicalKeyLen = 1 + 8 + 1  // 'h', number, 'n'
	hashKeyLen      = 1 + 32     // 'H' or 'l', hash
	trieNodeKeyLen  = 32
)

var (
	keyLastHeader    = []byte("LastHeader")
	keyLastFast      = []byte("LastFast")
	keyLastBlock     = []byte("LastBlock")
	keyLastFinalized = []byte("LastFinalized")
	keyDBVersion     = []byte("DatabaseVersion")
)

// keyClass is what a key is, as far as the replica cares.
type keyClass uint8

const (
	classOther     keyClass = iota
	classState              // trie node or code
	classHeader             // 'h' num hash
	classBody               // 'b' num hash; also 'r' and 'j'
	classCanonical          // 'h' num 'n'
	classNumber             // 'H' hash
	classTxLookup           // 'l' hash
	classMarker             // LastHeader, LastFast, LastBlock, LastFinalized, DatabaseVersion
	classLocal              // LocalKeys
)

func classify(key []byte) keyClass {
	switch len(key) {
	case trieNodeKeyLen:
		return classState
	case blockKeyLen:
		switch key[0] {
		case 'h':
			return classHeader
		case 'b', 'r', 'j':
			return classBody
		}
	case hashKeyLen:
		switch key[0] {
		case 'H':
			return classNumber
		case 'l':
			return classTxLookup
		case 'c':
			return classState
		}
	case canonicalKeyLen:
		if key[0] == 'h' && key[9] == 'n' {
			return classCanonical
		}
		if string(key) == string(keyLastHeader) {
			return classMarker
		}
	case len(keyDBVersion):
		if string(key) == string(keyDBVersion) {
			return classMarker
		}
	case len(keyLastFast), len(keyLastBlock), len(keyLastFinalized):
		switch string(key) {
		case string(keyLastFast), string(keyLastBlock), string(keyLastFinalized):
			return classMarker
		}
	}
	if IsLocalKey(key) {
		return classLocal
	}
	return classOther
}

func keyNumber(key []byte) uint64    { return binary.BigEndian.Uint64(key[1:9]) }
func keyHash(key []byte) common.Hash { return common.BytesToHash(key[len(key)-32:]) }

func blockKey(prefix byte, number uint64, hash common.Hash) []byte {
	key := make([]byte, blockKeyLen)
	key[0] = prefix
	binary.BigEndian.PutUint64(key[1:], number)
	copy(key[9:], hash[:])
	return key
}

func canonicalKey(number uint64) []byte {
	key := make([]byte, canonicalKeyLen)
	key[0] = 'h'
	binary.BigEndian.PutUint64(key[1:], number)
	key[9] = 'n'
	return key
}

func numberKey(hash common.Hash) []byte { return append([]byte{'H'}, hash[:]...) }

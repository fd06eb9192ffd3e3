package gethcompat

import (
	"bytes"

	"github.com/ethereum/go-ethereum/ethdb"
)

// memory is a database that remembers the keys put into it.
type memory struct {
	ethdb.KeyValueStore
	keys [][]byte
	skip string
}

func (m *memory) without(prefix string) *memory {
	m.skip = prefix
	return m
}

func (m *memory) Put(key, value []byte) error {
	if m.skip == "" || !bytes.HasPrefix(key, []byte(m.skip)) {
		m.keys = append(m.keys, bytes.Clone(key))
	}
	return m.KeyValueStore.Put(key, value)
}

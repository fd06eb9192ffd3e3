package replica

import (
	"encoding/binary"

	"github.com/drover-io/drover/chaindata"
	"github.com/ethereum/go-ethereum/common"
)

// change is one batch of the stream as this database applies it: without what is local, without the moves of the
// master's freezer, and with what geth has to be told about it.
type change struct {
	// data are the operations in the encoding of a LevelDB batch, behind the room of its header; the record's own
	// bytes when nothing had to be left out.
	data  []byte
	count int

	// What the head tracker reacts to.
	headHeader, headFast, headBlock *common.Hash // puts of the three head markers
	finalized                       *common.Hash // put of LastFinalized; the zero hash means none
	databaseVersion                 int          // put of geth's version of its schema; 0 when there is none
	canonical                       *uint64      // number of a put of a canonical hash
	blockData                       bool         // puts of headers, bodies, receipts
	state                           bool         // puts of trie nodes or code
	dropsCanonical                  bool         // deletes of canonical hashes that are not the freezer's
	dropsTxLookup                   bool         // deletes of transaction lookups
	rewind                          bool         // deletes whole blocks
	left                            int          // operations left out
}

// ops are the operations without the header.
func (c *change) ops() []byte {
	if len(c.data) == 0 {
		return nil
	}
	return c.data[batchHeader:]
}

// substantive says that the batch is the next piece of geth's work on the chain, so that what came before it is
// complete. Index, freezer and flat-state writes come from other goroutines of geth at any time.
func (c *change) substantive() bool {
	return c.blockData || c.state || c.finalized != nil || c.headBlock != nil
}

func (c *change) setsHeads() bool {
	return c.headHeader != nil || c.headFast != nil || c.headBlock != nil
}

// scan reads a batch. frozen is the number of blocks in the local freezer: what the master's freezer deletes below
// that is deleted here too, above it the local freezer does the same move in its own time.
//
// Whose a delete is shows in its batch, whatever finality was when it was made (core/rawdb/chain_freezer.go,
// core/headerchain.go): the freezer takes a canonical block out with DeleteBlockWithoutNumber, which leaves
// the hash-to-number entry; everything that really deletes a block (a rewind, the freezer dropping a side chain)
// deletes that entry too.
func scan(b chaindata.Batch, frozen uint64) change {
	var c change
	var special bool
	for op := range b.Ops() {
		if op.Delete {
			switch classify(op.Key) {
			case classHeader, classBody, classCanonical, classNumber, classLocal:
				special = true
			case classTxLookup:
				c.dropsTxLookup = true
			}
			c.count++
			continue
		}
		c.count++
		switch classify(op.Key) {
		case classState:
			c.state = true
		case classHeader, classBody, classNumber:
			c.blockData = true
		case classCanonical:
			n := keyNumber(op.Key)
			c.canonical = &n
		case classMarker:
			c.marker(op)
		case classLocal:
			special = true
		}
	}
	if !special {
		c.data = b.Data
		return c
	}
	c.filter(b, frozen)
	return c
}

// batchHeader is the length of a LevelDB batch's header: sequence (8) and count (4).
const batchHeader = 12

func (c *change) marker(op chaindata.Op) {
	hash := common.BytesToHash(op.Value)
	switch string(op.Key) {
	case string(keyLastHeader):
		c.headHeader = &hash
	case string(keyLastFast):
		c.headFast = &hash
	case string(keyLastBlock):
		c.headBlock = &hash
	case string(keyLastFinalized):
		c.finalized = &hash
	case string(keyDBVersion):
		c.databaseVersion = int(databaseVersion(op.Value))
	}
}

// filter copies the operations that belong here.
func (c *change) filter(b chaindata.Batch, frozen uint64) {
	total := c.count
	numbered := make(map[common.Hash]bool) // blocks that are really deleted
	moved := make(map[uint64]bool)         // heights whose canonical block went into the master's freezer
	for op := range b.Ops() {
		if op.Delete && classify(op.Key) == classNumber {
			numbered[keyHash(op.Key)] = true
		}
	}
	for op := range b.Ops() {
		if op.Delete && classify(op.Key) == classHeader && !numbered[keyHash(op.Key)] {
			moved[keyNumber(op.Key)] = true
		}
	}
	c.data, c.count = make([]byte, batchHeader, len(b.Data)), 0
	for op := range b.Ops() {
		class := classify(op.Key)
		if class == classLocal {
			continue
		}
		if !op.Delete {
			c.put(op.Key, op.Value)
			continue
		}
		switch class {
		case classHeader, classBody:
			number, hash := keyNumber(op.Key), keyHash(op.Key)
			if !numbered[hash] && number >= frozen {
				continue
			}
			if class == classHeader && numbered[hash] {
				c.rewind = true
				// The master may have had the rest of the block in its freezer, and this database not.
				c.delete(blockKey('b', number, hash))
				c.delete(blockKey('r', number, hash))
				c.delete(blockKey('j', number, hash))
			}
		case classCanonical:
			number := keyNumber(op.Key)
			if moved[number] && number >= frozen {
				continue
			}
			if !moved[number] {
				c.dropsCanonical = true
			}
		}
		c.delete(op.Key)
	}
	c.left = max(0, total-c.count)
}

func (c *change) put(key, value []byte) {
	c.data = appendPut(c.data, key, value)
	c.count++
}

func (c *change) delete(key []byte) {
	c.data = append(c.data, 0)
	c.data = binary.AppendUvarint(c.data, uint64(len(key)))
	c.data = append(c.data, key...)
	c.count++
}

// appendPut appends a put in goleveldb's batch encoding.
func appendPut(dst, key, value []byte) []byte {
	dst = append(dst, 1)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

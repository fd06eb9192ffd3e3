package master

import (
	"encoding/hex"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// rememberedHeaders is how many headers the tracker keeps: a head marker names a block by its hash alone, and its header
// was written at most a deep reorg before.
const rememberedHeaders = 1024

// headTracker reads the chain's head out of the captured batches. One goroutine uses it at a time.
type headTracker struct {
	headers map[[32]byte]changelog.BlockRef
	order   [][32]byte // ring of the keys, oldest at next
	next    int
	genesis string // the canonical hash of block 0, when it has come by and nobody was told
}

func newHeadTracker() *headTracker {
	return &headTracker{headers: map[[32]byte]changelog.BlockRef{}, order: make([][32]byte, rememberedHeaders)}
}

// observe returns the head that the batch sets: nil when it sets none, an empty reference when it sets one whose header
// did not come by.
func (t *headTracker) observe(batch chaindata.Batch) *changelog.BlockRef {
	var head *changelog.BlockRef
	for op := range batch.Ops() {
		if op.Delete || len(op.Key) == 32 { // trie nodes are most of the stream
			continue
		}
		switch kind, number, hash := chaindata.Classify(op.Key); kind {
		case chaindata.Header:
			t.remember([32]byte(hash), changelog.BlockRef{Number: number, Hash: hexHash(hash), Time: headerTime(op.Value)})
		case chaindata.CanonicalHash:
			if number == 0 && len(op.Value) == 32 {
				t.genesis = hexHash(op.Value)
			}
		case chaindata.HeadBlock:
			head = &changelog.BlockRef{}
			if len(op.Value) == 32 {
				*head = t.headers[[32]byte(op.Value)]
			}
		}
	}
	return head
}

func (t *headTracker) remember(hash [32]byte, ref changelog.BlockRef) {
	if _, known := t.headers[hash]; known {
		return
	}
	delete(t.headers, t.order[t.next])
	t.headers[hash], t.order[t.next] = ref, hash
	t.next = (t.next + 1) % len(t.order)
}

func hexHash(hash []byte) string { return "0x" + hex.EncodeToString(hash) }

// headerTimeField is the timestamp's place in a header's RLP list (go-ethereum core/types/block.go, Header).
const headerTimeField = 11

// headerTime reads the timestamp from a header's RLP; 0 when it cannot be read.
func headerTime(rlp []byte) uint64 {
	list, _, ok := rlpItem(rlp)
	for range headerTimeField {
		if !ok {
			return 0
		}
		_, list, ok = rlpItem(list)
	}
	field, _, ok := rlpItem(list)
	if !ok || len(field) > 8 {
		return 0
	}
	var value uint64
	for _, b := range field {
		value = value<<8 | uint64(b)
	}
	return value
}

// rlpItem splits the first item's content off RLP bytes (Ethereum Yellow Paper, appendix B).
func rlpItem(data []byte) (content, rest []byte, ok bool) {
	if len(data) == 0 {
		return nil, nil, false
	}
	prefix, skip, size := data[0], 1, 0
	switch {
	case prefix < 0x80:
		skip, size = 0, 1
	case prefix < 0xb8:
		size = int(prefix - 0x80)
	case prefix >= 0xc0 && prefix < 0xf8:
		size = int(prefix - 0xc0)
	default:
		lengthBytes := int(prefix - 0xb7)
		if prefix >= 0xf8 {
			lengthBytes = int(prefix - 0xf7)
		}
		if lengthBytes > 4 || len(data) < 1+lengthBytes {
			return nil, nil, false
		}
		for _, b := range data[1 : 1+lengthBytes] {
			size = size<<8 | int(b)
		}
		skip = 1 + lengthBytes
	}
	if len(data)-skip < size {
		return nil, nil, false
	}
	return data[skip : skip+size], data[skip+size:], true
}

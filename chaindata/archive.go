package chaindata

import (
	"bytes"
	"fmt"
)

// ArchiveCheck watches a stream for a source that is not an archive of the hash scheme: heads whose state is not written.
//
// geth writes a block's data concurrently with its state, the root node last, and the head marker behind both. So when a
// head marker names a block, its header and its root have passed, in any order; unless the root is the parent's (then
// nothing is written), or the header was written before this stream began. Each of these passes.
//
// Its cost is one comparison of length an operation, and its memory is bounded: of each batch it keeps the last trie node,
// which is where a root stands (goleveldb may merge batches into one, but one goroutine at a time commits state).
// The zero value is ready. It is not safe for concurrent use.
type ArchiveCheck struct {
	headers fifo[headerState]
	roots   fifo[struct{}]
	missed  int      // successive heads without a state
	last    [32]byte // the head that missed last
}

type headerState struct {
	parent, root [32]byte
	number       uint64
	settled      bool // the root was seen
}

const (
	archiveWindow = 4096 // headers, and roots, kept

	// archiveMisses heads in a row must lack their state. One would do by what geth does today; a false alarm would
	// stop a healthy master, and two blocks more cost nothing.
	archiveMisses = 3
)

var (
	headBlockKey = []byte("LastBlock")
	stateIDKey   = []byte("LastStateID")
	journalKey   = []byte("TrieJournal")
)

// Observe looks at the next batch of the stream. Its error is ErrUnsupportedSource, and final.
func (c *ArchiveCheck) Observe(b Batch) error {
	var lastNode, head []byte
	for op := range b.Ops() {
		if op.Delete {
			continue
		}
		key := op.Key
		switch n := len(key); {
		case n == 32:
			lastNode = key
		case n == 41 && key[0] == 'h':
			c.header(key, op.Value)
		case n == 9 && bytes.Equal(key, headBlockKey):
			head = op.Value
		case n == 0:
		case key[0] == 'A' && n <= 64 && nibbles(key[1:]), key[0] == 'L' && n == 33,
			n == 11 && (bytes.Equal(key, stateIDKey) || bytes.Equal(key, journalKey)):
			return errPathScheme()
		}
	}
	if lastNode != nil {
		c.root([32]byte(lastNode))
	}
	if len(head) == 32 {
		return c.head([32]byte(head))
	}
	return nil
}

func (c *ArchiveCheck) header(key, rlp []byte) {
	_, number, hash := Classify(key)
	parent, root, err := headerRefs(rlp)
	if err != nil {
		return
	}
	h := headerState{parent: parent, root: root, number: number}
	_, h.settled = c.roots.get(root)
	if old, ok := c.headers.get([32]byte(hash)); ok {
		h.settled = h.settled || old.settled
	}
	c.headers.put([32]byte(hash), h)
}

func (c *ArchiveCheck) root(node [32]byte) { c.roots.put(node, struct{}{}) }

func (c *ArchiveCheck) head(hash [32]byte) error {
	h, ok := c.headers.get(hash)
	if !ok {
		return nil
	}
	if !h.settled {
		_, h.settled = c.roots.get(h.root)
	}
	if h.settled {
		c.missed = 0
		c.headers.put(hash, h)
		return nil
	}
	parent, ok := c.headers.get(h.parent)
	if !ok {
		return nil // whether its state is the parent's cannot be told
	}
	if parent.root == h.root {
		return nil
	}
	if c.missed > 0 && c.last == hash {
		return nil
	}
	c.missed, c.last = c.missed+1, hash
	if c.missed < archiveMisses {
		return nil
	}
	return fmt.Errorf("%w: the state root %x of head block %d is not written: run geth with --state.scheme hash --gcmode archive",
		ErrUnsupportedSource, h.root, h.number)
}

func errPathScheme() error {
	return fmt.Errorf("%w: the database is of the path scheme: sync a new datadir with "+
		"--db.engine leveldb --state.scheme hash --gcmode archive", ErrUnsupportedSource)
}

// fifo is a map that forgets what was put first.
type fifo[V any] struct {
	m    map[[32]byte]V
	ring [][32]byte
	at   int
}

func (f *fifo[V]) get(k [32]byte) (V, bool) {
	v, ok := f.m[k]
	return v, ok
}

func (f *fifo[V]) put(k [32]byte, v V) {
	if f.m == nil {
		f.m = make(map[[32]byte]V, archiveWindow)
	}
	if _, ok := f.m[k]; ok {
		f.m[k] = v
		return
	}
	if len(f.ring) < archiveWindow {
		f.ring = append(f.ring, k)
	} else {
		delete(f.m, f.ring[f.at])
		f.ring[f.at] = k
		f.at = (f.at + 1) % archiveWindow
	}
	f.m[k] = v
}

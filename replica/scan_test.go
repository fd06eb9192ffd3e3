package replica

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
)

type op struct {
	key, value []byte // a nil value deletes
}

func makeBatch(t testing.TB, first uint64, ops ...op) chaindata.Batch {
	t.Helper()
	data := make([]byte, batchHeader)
	binary.LittleEndian.PutUint64(data, first)
	binary.LittleEndian.PutUint32(data[8:], uint32(len(ops)))
	c := change{data: data}
	for _, o := range ops {
		if o.value == nil {
			c.delete(o.key)
		} else {
			c.put(o.key, o.value)
		}
	}
	b, err := chaindata.ParseBatch(c.data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// applied is what a change does, as operations.
func (c *change) applied() (out []op) {
	for o := range (chaindata.Batch{Data: c.data}).Ops() {
		value := o.Value
		if o.Delete {
			value = nil
		} else if value == nil {
			value = []byte{}
		}
		out = append(out, op{o.Key, value})
	}
	return out
}

func sameOps(t *testing.T, got, want []op) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d operations, want %d: %q", len(got), len(want), got)
	}
	for i := range got {
		if !bytes.Equal(got[i].key, want[i].key) || !bytes.Equal(got[i].value, want[i].value) || (got[i].value == nil) != (want[i].value == nil) {
			t.Errorf("operation %d: %q, want %q", i, got[i], want[i])
		}
	}
}

func hashOf(b byte) common.Hash { return common.Hash{0: b, 31: b} }

func TestBatchesWithoutAnythingSpecialAreAppliedAsTheyAre(t *testing.T) {
	h := hashOf(1)
	b := makeBatch(t, 7, op{h[:], []byte("node")}, op{blockKey('b', 3, h), []byte("body")}, op{append([]byte("l"), h[:]...), nil})
	c := scan(b, 0)
	if &c.data[0] != &b.Data[0] {
		t.Error("the record was copied")
	}
	if !c.state || !c.blockData || !c.dropsTxLookup || c.left != 0 {
		t.Errorf("%+v", c)
	}
}

func TestLocalKeysAreLeftOut(t *testing.T) {
	h := hashOf(2)
	kept := op{h[:], []byte("node")}
	var ops []op
	for _, l := range LocalKeys {
		key := l.Key
		if l.Prefix {
			key = append(append([]byte{}, key...), "R"...)
		}
		if !IsLocalKey(key) {
			t.Errorf("%q is on the list and not local", key)
		}
		if l.Reason == "" {
			t.Errorf("%q has no reason", key)
		}
		ops = append(ops, op{key, []byte("x")}, op{key, nil})
	}
	c := scan(makeBatch(t, 1, append(ops, kept)...), 0)
	sameOps(t, c.applied(), []op{kept})
}

func TestATrieNodeWhoseHashLooksLikeALocalKeyIsApplied(t *testing.T) {
	for _, l := range LocalKeys {
		key := make([]byte, 32)
		copy(key, l.Key)
		if IsLocalKey(key) {
			t.Errorf("trie node %q counts as local", key)
		}
		put := op{key, []byte("node")}
		c := scan(makeBatch(t, 1, put), 0)
		sameOps(t, c.applied(), []op{put})
	}
}

func freezerDeletes(number uint64, h common.Hash) []op {
	return []op{{blockKey('r', number, h), nil}, {blockKey('h', number, h), nil}, {blockKey('b', number, h), nil},
		{blockKey('j', number, h), nil}, {canonicalKey(number), nil}}
}

func TestMovesIntoTheMastersFreezerAreLeftOut(t *testing.T) {
	var ops []op
	for n := uint64(1); n < 5; n++ {
		ops = append(ops, freezerDeletes(n, hashOf(byte(n)))...)
	}
	c := scan(makeBatch(t, 1, ops...), 0)
	sameOps(t, c.applied(), nil)
	if c.dropsCanonical || c.rewind {
		t.Errorf("a freezer's move looks like a reorg: %+v", c)
	}
	// What the local freezer has already is deleted here too.
	c = scan(makeBatch(t, 1, ops...), 3)
	sameOps(t, c.applied(), ops[:10])
}

func TestSideBlocksThatTheFreezerDropsAreDeleted(t *testing.T) {
	side := hashOf(9)
	ops := append(freezerDeletes(4, hashOf(4)),
		op{blockKey('r', 4, side), nil}, op{blockKey('h', 4, side), nil}, op{numberKey(side), nil}, op{blockKey('b', 4, side), nil})
	c := scan(makeBatch(t, 1, ops...), 0)
	for _, o := range c.applied() {
		if classify(o.key) == classCanonical || classify(o.key) != classNumber && keyHash(o.key) != side {
			t.Errorf("deletes %x", o.key)
		}
	}
	for _, prefix := range []byte{'h', 'b', 'r'} {
		found := false
		for _, o := range c.applied() {
			found = found || bytes.Equal(o.key, blockKey(prefix, 4, side))
		}
		if !found {
			t.Errorf("does not delete the side block's %c", prefix)
		}
	}
}

func TestARewindDeletesWholeBlocks(t *testing.T) {
	h := hashOf(5)
	// The master has the block in its freezer: it deletes the header alone.
	c := scan(makeBatch(t, 1, op{blockKey('h', 5, h), nil}, op{numberKey(h), nil}, op{canonicalKey(5), nil}), 0)
	sameOps(t, c.applied(), []op{{blockKey('b', 5, h), nil}, {blockKey('r', 5, h), nil}, {blockKey('j', 5, h), nil},
		{blockKey('h', 5, h), nil}, {numberKey(h), nil}, {canonicalKey(5), nil}})
	if !c.rewind || !c.dropsCanonical {
		t.Errorf("not seen as a rewind: %+v", c)
	}
}

func TestAReorgsDeletesAreApplied(t *testing.T) {
	ops := []op{{append([]byte("l"), make([]byte, 32)...), nil}, {canonicalKey(8), nil}, {canonicalKey(9), nil}}
	c := scan(makeBatch(t, 1, ops...), 0)
	sameOps(t, c.applied(), ops)
	if !c.dropsCanonical {
		t.Error("not seen as a reorg's")
	}
}

func TestHeadMarkersAreSeen(t *testing.T) {
	h := hashOf(3)
	c := scan(makeBatch(t, 1, op{keyLastHeader, h[:]}, op{keyLastFast, h[:]}, op{canonicalKey(12), h[:]}, op{keyLastBlock, h[:]}), 0)
	if c.headBlock == nil || *c.headBlock != h || c.canonical == nil || *c.canonical != 12 || c.stepsBack() {
		t.Errorf("%+v", c)
	}
	c = scan(makeBatch(t, 1, op{keyLastBlock, h[:]}, op{keyLastHeader, h[:]}), 0)
	if !c.stepsBack() {
		t.Error("a step of SetHead is not seen")
	}
	c = scan(makeBatch(t, 1, op{keyLastFinalized, make([]byte, 32)}), 0)
	if c.finalized == nil || *c.finalized != (common.Hash{}) {
		t.Error("finality taken back is not seen")
	}
}

func FuzzScanAppliesOrLeavesOutEveryOperation(f *testing.F) {
	h := hashOf(1)
	f.Add([]byte("fm-R"), []byte("x"), blockKey('h', 1, h), numberKey(h))
	f.Add([]byte("LastBlock"), h[:], canonicalKey(1), []byte("H"))
	f.Fuzz(func(t *testing.T, a, value, b, c []byte) {
		if value == nil {
			value = []byte{}
		}
		batch := makeBatch(t, 1, op{a, value}, op{b, nil}, op{c, nil}, op{c, value})
		got := scan(batch, 3)
		for _, o := range got.applied() {
			if IsLocalKey(o.key) {
				t.Errorf("applies the local key %q", o.key)
			}
		}
		if !IsLocalKey(c) {
			all := got.applied()
			if last := all[len(all)-1]; !bytes.Equal(last.key, c) || last.value == nil {
				t.Errorf("left out the put of %q", c)
			}
		}
	})
}

func TestGroupsHoldTheLastPosition(t *testing.T) {
	var g group
	h := hashOf(1)
	for i := range 3 {
		c := scan(makeBatch(t, uint64(i+1), op{h[:], []byte{byte(i)}}), 0)
		g.add(&c, changelog.Position{Cluster: "c", Timeline: 1, Sequence: uint64(i + 1), Offset: int64(i)})
	}
	batch, err := g.batch()
	if err != nil {
		t.Fatal(err)
	}
	c := change{data: append(make([]byte, batchHeader), batch.Dump()...)}
	all := c.applied()
	last := all[len(all)-1]
	at, err := changelog.UnmarshalPosition(last.value)
	if err != nil || !bytes.Equal(last.key, changelog.PositionKey) || at.Sequence != 3 {
		t.Errorf("the group ends with %q = %v (%v)", last.key, at, err)
	}
}

package chaindata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
)

// testHeader is as much of a header's RLP as there must be: parent, uncles, coinbase, root, and some more.
func testHeader(parent, root [32]byte) []byte {
	body := append([]byte{0xa0}, parent[:]...)
	body = append(append(body, 0xa0), make([]byte, 32)...)
	body = append(append(body, 0x94), make([]byte, 20)...)
	body = append(append(body, 0xa0), root[:]...)
	body = append(append(body, 0xb9, 1, 0), make([]byte, 256)...) // the bloom
	return append([]byte{0xf9, byte(len(body) >> 8), byte(len(body))}, body...)
}

type chain struct {
	t     *testing.T
	check *ArchiveCheck
	seq   uint64
	err   error
}

func (c *chain) observe(fill func(*leveldb.Batch)) {
	c.t.Helper()
	b := new(leveldb.Batch)
	fill(b)
	c.seq++
	parsed, err := ParseBatch(record(c.seq, b))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.check.Observe(parsed); err != nil && c.err == nil {
		c.err = err
	}
}

func id(kind byte, n int) (h [32]byte) {
	h[0] = kind
	binary.BigEndian.PutUint64(h[24:], uint64(n))
	return h
}

func (c *chain) header(n, parent, root int) {
	hash := id('B', n)
	key := binary.BigEndian.AppendUint64([]byte("h"), uint64(n))
	c.observe(func(b *leveldb.Batch) { b.Put(append(key, hash[:]...), testHeader(id('B', parent), id('R', root))) })
}

func (c *chain) state(root int) {
	r, node := id('R', root), id('N', root)
	c.observe(func(b *leveldb.Batch) {
		b.Put(node[:], []byte("node"))
		b.Put(r[:], []byte("root"))
	})
}

func (c *chain) head(n int) {
	hash := id('B', n)
	c.observe(func(b *leveldb.Batch) { b.Put([]byte("LastBlock"), hash[:]) })
}

// sound are streams of archives.
var sound = map[string]func(c *chain){
	"state before header": func(c *chain) {
		for n := 1; n < 50; n++ {
			c.state(n)
			c.header(n, n-1, n)
			c.head(n)
		}
	},
	"header before state": func(c *chain) {
		for n := 1; n < 50; n++ {
			c.header(n, n-1, n)
			c.state(n)
			c.head(n)
		}
	},
	"empty blocks": func(c *chain) {
		for n := 1; n < 50; n++ {
			c.header(n, n-1, 7)
			c.head(n)
		}
	},
	"first heads after a start in the middle": func(c *chain) {
		for n := 100; n < 110; n++ {
			c.head(n)
		}
		c.header(110, 109, 110)
		c.head(110)
	},
	"a reorg back and forth, and a set head to a block far below": func(c *chain) {
		for n := 1; n < 3*archiveWindow; n++ {
			c.header(n, n-1, n)
			c.state(n)
			c.head(n)
		}
		for range 5 {
			for _, n := range []int{3*archiveWindow - 1, 3*archiveWindow - 70, 5, 3*archiveWindow - 2} {
				c.head(n)
			}
		}
	},
	"headers long before their states": func(c *chain) {
		for n := 1; n < archiveWindow; n++ {
			c.header(n, n-1, n)
		}
		for n := 1; n < archiveWindow; n++ {
			c.state(n)
			c.head(n)
		}
	},
	"one batch with all in it": func(c *chain) {
		for n := 1; n < 20; n++ {
			hash, root := id('B', n), id('R', n)
			key := binary.BigEndian.AppendUint64([]byte("h"), uint64(n))
			c.observe(func(b *leveldb.Batch) {
				b.Put([]byte("LastBlock"), hash[:])
				b.Put(root[:], []byte("root"))
				b.Put(append(key, hash[:]...), testHeader(id('B', n-1), root))
			})
		}
	},
	"deletes of the path scheme's keys": func(c *chain) {
		c.observe(func(b *leveldb.Batch) { b.Delete([]byte("A")); b.Delete([]byte("LastStateID")) })
	},
	"odd values": func(c *chain) {
		hash := id('B', 1)
		key := binary.BigEndian.AppendUint64([]byte("h"), 1)
		c.observe(func(b *leveldb.Batch) {
			b.Put(append(key, hash[:]...), []byte{0xf9, 1})
			b.Put([]byte("LastBlock"), []byte("short"))
			b.Put([]byte{}, nil)
		})
	},
}

func TestArchiveCheckRaisesNoFalseAlarm(t *testing.T) {
	for name, run := range sound {
		t.Run(name, func(t *testing.T) {
			c := &chain{t: t, check: new(ArchiveCheck)}
			if run(c); c.err != nil {
				t.Fatal(c.err)
			}
			if len(c.check.headers.m) > archiveWindow || len(c.check.roots.m) > archiveWindow {
				t.Fatalf("%d headers and %d roots kept", len(c.check.headers.m), len(c.check.roots.m))
			}
		})
	}
}

func TestArchiveCheckFindsASourceThatIsNone(t *testing.T) {
	for name, run := range map[string]func(c *chain){
		"states are kept in memory": func(c *chain) {
			for n := 1; n < 6; n++ {
				c.header(n, n-1, n)
				c.head(n)
			}
		},
		"after a while": func(c *chain) {
			for n := 1; n < 100; n++ {
				c.header(n, n-1, n)
				c.state(n)
				c.head(n)
			}
			for n := 100; n < 104; n++ {
				c.header(n, n-1, n)
				c.head(n)
			}
		},
		"path scheme, root node": func(c *chain) {
			c.observe(func(b *leveldb.Batch) { b.Put([]byte("A"), []byte("root")) })
		},
		"path scheme, state id": func(c *chain) {
			r := id('R', 1)
			c.observe(func(b *leveldb.Batch) { b.Put(append([]byte("L"), r[:]...), make([]byte, 8)) })
		},
		"path scheme, journal": func(c *chain) {
			c.observe(func(b *leveldb.Batch) { b.Put([]byte("TrieJournal"), []byte("x")) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &chain{t: t, check: new(ArchiveCheck)}
			if run(c); !errors.Is(c.err, ErrUnsupportedSource) {
				t.Fatalf("got %v", c.err)
			}
			t.Log(c.err)
		})
	}
}

func FuzzHeaderRefs(f *testing.F) {
	f.Add(testHeader(id('P', 1), id('R', 2)))
	f.Add([]byte{0xf9, 1, 0, 0xb9, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := headerRefs(data); err != nil && !errors.Is(err, errHeader) {
			t.Fatal(err)
		}
	})
}

func FuzzClassify(f *testing.F) {
	for _, key := range []string{"", "LastBlock", "A", "h", "fm-R", "O", "v", "vA", "ethereum-config-"} {
		f.Add([]byte(key))
		f.Add(fmt.Appendf([]byte(key), "%032d", 1))
		f.Add(fmt.Appendf([]byte(key), "%040d", 1))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		kind, _, hash := Classify(key)
		if kind >= kinds || kind.String() == "" || hash != nil && len(hash) != 32 {
			t.Fatalf("%q: %d %x", key, kind, hash)
		}
	})
}

package harness

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/ethdb/leveldb"
)

// Differences is what Compare found.
type Differences struct {
	Keys   int      // keys that were compared
	Frozen uint64   // blocks that stand in the longer freezer
	Count  int      // keys and blocks that differ
	First  []string // the first of them, described
}

func (d Differences) String() string {
	return fmt.Sprintf("%d keys and %d frozen blocks compared, %d differ: %s", d.Keys, d.Frozen, d.Count, strings.Join(d.First, "\n"))
}

func (d *Differences) add(format string, args ...any) {
	if d.Count++; len(d.First) < 20 {
		d.First = append(d.First, fmt.Sprintf(format, args...))
	}
}

// localKeys are the keys that belong to each database alone. The list is held
// here on its own, apart from the replica's: a key that a replica leaves out
// without a reason named here is a difference.
var localKeys = []struct{ prefix, reason string }{
	{"unclean-shutdown", "each process records its own crashes"},
	{"fm-", "the log index is built by each node at its own pace"},
	{"drover-", "the replica's position"},
	{"TransactionIndexTail", "how far back a node's transaction indexer got, which works at its own pace; `geth import` has none"},
}

func isLocal(key []byte) bool {
	if len(key) == common.HashLength {
		return false // a trie node, whose hash may begin with anything
	}
	for _, local := range localKeys {
		if bytes.HasPrefix(key, []byte(local.prefix)) {
			return true
		}
	}
	return false
}

// Compare compares two chaindata directories, which nobody may have open, key
// by key: everything but the local keys. Data of a block may stand in LevelDB
// on one side and in the freezer on the other.
func Compare(left, right string) (Differences, error) {
	var d Differences
	a, err := openSide(left)
	if err != nil {
		return d, err
	}
	defer a.close()
	b, err := openSide(right)
	if err != nil {
		return d, err
	}
	defer b.close()
	d.Frozen = max(a.frozen, b.frozen)
	if err := d.compareKeys(a, b); err != nil {
		return d, err
	}
	d.compareFrozen(a, b)
	return d, nil
}

// side is one of two databases.
type side struct {
	dir    string
	db     ethdb.Database
	frozen uint64 // blocks in the freezer: numbers below this
}

func openSide(dir string) (*side, error) {
	if _, err := os.Stat(filepath.Join(dir, "CURRENT")); err != nil {
		return nil, fmt.Errorf("no database in %s: %w", dir, err)
	}
	store, err := leveldb.New(dir, 64, 256, "", true)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dir, err)
	}
	s := &side{dir: dir, db: rawdb.NewDatabase(store)}
	ancient := filepath.Join(dir, "ancient")
	if _, err := os.Stat(filepath.Join(ancient, "chain")); errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if s.db, err = rawdb.Open(store, rawdb.OpenOptions{Ancient: ancient, ReadOnly: true}); err != nil {
		store.Close()
		return nil, fmt.Errorf("opening %s with its freezer: %w", dir, err)
	}
	if s.frozen, err = s.db.Ancients(); err != nil {
		s.close()
		return nil, fmt.Errorf("reading the freezer of %s: %w", dir, err)
	}
	return s, nil
}

func (s *side) close() { s.db.Close() }

// compareKeys walks both key spaces in step.
func (d *Differences) compareKeys(a, b *side) error {
	left, right := a.db.NewIterator(nil, nil), b.db.NewIterator(nil, nil)
	defer left.Release()
	defer right.Release()
	skip := func(key []byte) bool { return isLocal(key) || d.movable(key, a, b) }
	next := func(it ethdb.Iterator) bool {
		for it.Next() {
			if !skip(it.Key()) {
				return true
			}
		}
		return false
	}
	moreLeft, moreRight := next(left), next(right)
	for moreLeft || moreRight {
		order := bytes.Compare(left.Key(), right.Key())
		switch {
		case !moreRight || (moreLeft && order < 0):
			d.add("only in %s: %s", a.dir, describeKey(left.Key()))
			moreLeft = next(left)
		case !moreLeft || order > 0:
			d.add("only in %s: %s", b.dir, describeKey(right.Key()))
			moreRight = next(right)
		default:
			d.Keys++
			if !bytes.Equal(left.Value(), right.Value()) {
				d.add("%s: %.80x in %s, %.80x in %s", describeKey(left.Key()), left.Value(), a.dir, right.Value(), b.dir)
			}
			moreLeft, moreRight = next(left), next(right)
		}
	}
	return errors.Join(left.Error(), right.Error())
}

// movable says whether the key holds data of a block that one of the freezers
// has taken, or has deleted because it was not canonical: compareFrozen looks at
// those. The genesis block stays in LevelDB for ever.
func (d *Differences) movable(key []byte, a, b *side) bool {
	if number, ok := blockNumber(key); ok {
		if number == 0 {
			return false
		}
		if number < d.Frozen {
			return true
		}
		// A freezer deletes side branches beyond its boundary too, when they
		// leave from a block below it.
		return a.frozen != b.frozen && len(key) == 1+8+common.HashLength && !canonical(key[9:], number, a, b)
	}
	if len(key) == 1+common.HashLength && key[0] == 'H' {
		hash := key[1:]
		for _, s := range []*side{a, b} {
			if number, ok := rawdb.ReadHeaderNumber(s.db, common.Hash(hash)); ok {
				return (number < d.Frozen || a.frozen != b.frozen) && !canonical(hash, number, a, b)
			}
		}
	}
	return false
}

func canonical(hash []byte, number uint64, a, b *side) bool {
	return rawdb.ReadCanonicalHash(a.db, number) == common.Hash(hash) || rawdb.ReadCanonicalHash(b.db, number) == common.Hash(hash)
}

// blockNumber is the number in a key of a header, canonical hash, body, receipts
// or access list.
func blockNumber(key []byte) (number uint64, ok bool) {
	switch {
	case len(key) == 1+8+common.HashLength && bytes.IndexByte([]byte("hbrj"), key[0]) >= 0:
	case len(key) == 1+8+1 && key[0] == 'h' && key[9] == 'n':
	default:
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:9]), true
}

// compareFrozen compares the canonical blocks that stand in either freezer,
// wherever the other side keeps them.
func (d *Differences) compareFrozen(a, b *side) {
	for number := range d.Frozen {
		left, right := a.block(number), b.block(number)
		for i, part := range []string{"hash", "header", "body", "receipts"} {
			if len(left[i]) == 0 || !bytes.Equal(left[i], right[i]) {
				d.add("block %d, %s: %.80x in %s, %.80x in %s", number, part, left[i], a.dir, right[i], b.dir)
			}
		}
	}
}

func (s *side) block(number uint64) [4][]byte {
	hash := rawdb.ReadCanonicalHash(s.db, number)
	return [4][]byte{hash[:], rawdb.ReadHeaderRLP(s.db, hash, number), rawdb.ReadBodyRLP(s.db, hash, number), rawdb.ReadReceiptsRLP(s.db, hash, number)}
}

// describeKey shows a key as text where it is text.
func describeKey(key []byte) string {
	for _, c := range key {
		if c < 0x20 || c > 0x7e {
			if number, ok := blockNumber(key); ok {
				return fmt.Sprintf("%c of block %d %x", key[0], number, key[9:])
			}
			return fmt.Sprintf("%x", key)
		}
	}
	return string(key)
}

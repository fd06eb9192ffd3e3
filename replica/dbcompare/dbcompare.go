// Package dbcompare compares two closed chaindata directories key by key (I7): LevelDB and freezer together. A block may
// be in LevelDB on one side and in the freezer on the other, since every node freezes its own blocks.
package dbcompare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-io/drover/chaindata"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/ethdb/leveldb"
)

// Options say what to leave out.
type Options struct {
	// Local says which keys belong to each database alone; replica.IsLocalKey, as a rule.
	Local func(key []byte) bool
	// Keep is how many differences are kept in full, default 50. All are counted.
	Keep int
}

// Difference is a key that is not the same on both sides.
type Difference struct {
	Kind string // of the key, by geth's schema
	Key  []byte
	// A and B are the values; nil where the key is absent.
	A, B []byte
}

// String returns the difference on one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s %x: %s, %s", d.Kind, d.Key, short(d.A), short(d.B))
}

func short(v []byte) string {
	switch {
	case v == nil:
		return "absent"
	case len(v) > 40:
		return fmt.Sprintf("%x… (%d bytes)", v[:32], len(v))
	}
	return fmt.Sprintf("%x", v)
}

// Report is the outcome of a comparison; the same databases give the same report.
type Report struct {
	Keys        int            // keys looked at, local ones left out; a key on both sides counts once
	FrozenA     uint64         // blocks in the first freezer
	FrozenB     uint64         // blocks in the second
	ByKind      map[string]int // differences by kind of key
	Differences []Difference   // the first of them, in key order
}

// Equal says that there is no difference.
func (r *Report) Equal() bool { return len(r.ByKind) == 0 }

// String returns the report in a few lines.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d keys, freezers %d and %d", r.Keys, r.FrozenA, r.FrozenB)
	if r.Equal() {
		return b.String() + ", no difference"
	}
	kinds := make([]string, 0, len(r.ByKind))
	for kind := range r.ByKind {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		fmt.Fprintf(&b, "\n%d × %s", r.ByKind[kind], kind)
	}
	for _, d := range r.Differences {
		fmt.Fprintf(&b, "\n  %s", d)
	}
	return b.String()
}

// Compare compares the chaindata directories a and b. Nothing may have them open. Differences are in the report;
// the error says that one could not be read.
func Compare(ctx context.Context, a, b string, opts Options) (*Report, error) {
	if opts.Keep == 0 {
		opts.Keep = 50
	}
	if opts.Local == nil {
		opts.Local = func([]byte) bool { return false }
	}
	left, err := open(a)
	if err != nil {
		return nil, err
	}
	defer left.Close()
	right, err := open(b)
	if err != nil {
		return nil, err
	}
	defer right.Close()
	c := &comparer{a: left, b: right, opts: opts, report: &Report{ByKind: make(map[string]int), FrozenA: left.frozen, FrozenB: right.frozen}}
	if err := c.keys(ctx); err != nil {
		return nil, err
	}
	if err := c.freezers(ctx); err != nil {
		return nil, err
	}
	return c.report, nil
}

// side is one database.
type side struct {
	ethdb.Database
	frozen uint64
}

func open(dir string) (*side, error) {
	if _, err := chaindata.Inspect(dir); err != nil {
		return nil, err
	}
	kv, err := leveldb.New(dir, 64, 256, "", true)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	ancient := filepath.Join(dir, "ancient")
	if _, err := os.Stat(filepath.Join(ancient, "chain")); errors.Is(err, os.ErrNotExist) {
		ancient = "" // an empty one in memory
	}
	db, err := rawdb.Open(kv, rawdb.OpenOptions{Ancient: ancient, ReadOnly: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s with its freezer: %w", dir, err), kv.Close())
	}
	frozen, err := db.Ancients()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("freezer of %s: %w", dir, err), db.Close())
	}
	return &side{db, frozen}, nil
}

type comparer struct {
	a, b   *side
	opts   Options
	report *Report
}

func (c *comparer) keys(ctx context.Context) error {
	left, right := c.a.NewIterator(nil, nil), c.b.NewIterator(nil, nil)
	defer left.Release()
	defer right.Release()
	l, r := left.Next(), right.Next()
	for i := 0; l || r; i++ {
		if i%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		order := 0
		switch {
		case !l:
			order = 1
		case !r:
			order = -1
		default:
			order = bytes.Compare(left.Key(), right.Key())
		}
		switch {
		case order < 0:
			c.look(left.Key(), present(left.Value()), nil)
		case order > 0:
			c.look(right.Key(), nil, present(right.Value()))
		default:
			c.look(left.Key(), present(left.Value()), present(right.Value()))
		}
		if order <= 0 {
			l = left.Next()
		}
		if order >= 0 {
			r = right.Next()
		}
	}
	return errors.Join(left.Error(), right.Error())
}

// look compares one key; a nil value means that the side's LevelDB does not have it.
func (c *comparer) look(key, a, b []byte) {
	if c.opts.Local(key) {
		return
	}
	c.report.Keys++
	if a == nil {
		a = c.a.ancient(key)
	}
	if b == nil {
		b = c.b.ancient(key)
	}
	if a != nil && b != nil && bytes.Equal(a, b) {
		return
	}
	c.differ(key, a, b)
}

func (c *comparer) differ(key, a, b []byte) {
	kind, _, _ := chaindata.Classify(key)
	c.report.ByKind[kind.String()]++
	if len(c.report.Differences) < c.opts.Keep {
		c.report.Differences = append(c.report.Differences,
			Difference{Kind: kind.String(), Key: bytes.Clone(key), A: bytes.Clone(a), B: bytes.Clone(b)})
	}
}

// tables are the freezer's, with the prefix that a block's key of the same content has in LevelDB.
var tables = []struct {
	prefix byte
	name   string
}{
	{'h', rawdb.ChainFreezerHeaderTable},
	{'b', rawdb.ChainFreezerBodiesTable},
	{'r', rawdb.ChainFreezerReceiptTable},
	{'j', rawdb.ChainFreezerBALTable},
}

// ancient returns what the freezer holds for a key of block data; nil when it holds nothing.
func (s *side) ancient(key []byte) []byte {
	switch len(key) {
	case 10: // canonical hash
		if key[0] != 'h' || key[9] != 'n' {
			return nil
		}
		return s.item(rawdb.ChainFreezerHashTable, binary.BigEndian.Uint64(key[1:]))
	case 41:
		for _, t := range tables {
			number := binary.BigEndian.Uint64(key[1:])
			if t.prefix == key[0] && bytes.Equal(s.item(rawdb.ChainFreezerHashTable, number), key[9:]) {
				return s.item(t.name, number)
			}
		}
	}
	return nil
}

func (s *side) item(table string, number uint64) []byte {
	if number >= s.frozen {
		return nil
	}
	value, err := s.Ancient(table, number)
	if err != nil || len(value) == 0 {
		return nil
	}
	return value
}

// block returns the canonical block's parts at a height, hash first, wherever they are.
func (s *side) block(number uint64) (hash []byte, parts [][]byte) {
	canonical := append(binary.BigEndian.AppendUint64([]byte{'h'}, number), 'n')
	if hash = s.item(rawdb.ChainFreezerHashTable, number); hash == nil {
		hash, _ = s.Get(canonical)
	}
	for _, t := range tables {
		value := s.item(t.name, number)
		if value == nil {
			key := append(binary.BigEndian.AppendUint64([]byte{t.prefix}, number), hash...)
			value, _ = s.Get(key)
		}
		parts = append(parts, value)
	}
	return hash, parts
}

// freezers compares the blocks that either side has frozen: LevelDB's iterators do not come by there.
func (c *comparer) freezers(ctx context.Context) error {
	for number := range max(c.a.frozen, c.b.frozen) {
		if number%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		hashA, partsA := c.a.block(number)
		hashB, partsB := c.b.block(number)
		c.report.Keys++
		canonical := append(binary.BigEndian.AppendUint64([]byte{'h'}, number), 'n')
		if !bytes.Equal(hashA, hashB) {
			c.differ(canonical, hashA, hashB)
			continue
		}
		for i, t := range tables {
			if !bytes.Equal(partsA[i], partsB[i]) {
				c.differ(append(binary.BigEndian.AppendUint64([]byte{t.prefix}, number), hashA...), partsA[i], partsB[i])
			}
		}
	}
	return nil
}

// present keeps an empty value apart from an absent one.
func present(v []byte) []byte {
	if v == nil {
		return []byte{}
	}
	return v
}

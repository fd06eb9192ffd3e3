package chaindata

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// tables writes tables as geth has them, one with snappy and one without.
func tables(t *testing.T, compression opt.Compression, keys int) [][]byte {
	t.Helper()
	dir := t.TempDir()
	db, err := leveldb.OpenFile(dir, &opt.Options{Filter: filter.NewBloomFilter(10), Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if err := db.Put(fmt.Appendf(nil, "key-%d", i*7919%keys), fmt.Appendf(nil, "value-%d-%d", i, i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.CompactRange(util.Range{}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // removes the tables that were compacted away
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.ldb"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	var all [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func TestEveryFlippedByteOfATableIsFound(t *testing.T) {
	for name, compression := range map[string]opt.Compression{"snappy": opt.SnappyCompression, "plain": opt.NoCompression} {
		for _, table := range tables(t, compression, 1500) {
			size := int64(len(table))
			if err := CheckTable(bytes.NewReader(table), size); err != nil {
				t.Fatalf("%s, whole: %v", name, err)
			}
			for i := range table {
				bad := bytes.Clone(table)
				bad[i] ^= 1 << (i % 8)
				if err := CheckTable(bytes.NewReader(bad), size); !errors.Is(err, ErrCorruptTable) {
					t.Fatalf("%s: byte %d of %d flipped: %v", name, i, size, err)
				}
			}
			for _, cut := range []int64{0, 1, 47, 48, size / 2, size - 1} {
				if err := CheckTable(bytes.NewReader(table[:cut]), cut); !errors.Is(err, ErrCorruptTable) {
					t.Errorf("%s: cut at %d: %v", name, cut, err)
				}
			}
		}
	}
}

func FuzzCheckTable(f *testing.F) {
	f.Add([]byte("no table"))
	f.Add(append(make([]byte, 40), tableMagic...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := CheckTable(bytes.NewReader(b), int64(len(b))); err != nil && !errors.Is(err, ErrCorruptTable) {
			t.Fatal(err)
		}
	})
}

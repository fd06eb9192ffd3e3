package chaindata

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
)

func TestGenesisIsReadWithoutOpeningTheDatabase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "chaindata")
	if genesis, err := Genesis(dir); err != nil || genesis != "" {
		t.Fatalf("absent directory: %q, %v", genesis, err)
	}
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if genesis, err := Genesis(dir); err != nil || genesis != "" {
		t.Fatalf("no chain yet: %q, %v", genesis, err)
	}
	key := append(append([]byte("h"), make([]byte, 8)...), 'n')
	if err := db.Put(key, bytes.Repeat([]byte{0xab}, 32), nil); err != nil {
		t.Fatal(err)
	}
	before, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if genesis, err := Genesis(dir); err != nil || genesis != "0x"+strings.Repeat("ab", 32) {
		t.Fatalf("%q, %v", genesis, err)
	}
	if after, err := Inspect(dir); err != nil || after.Sequence != before.Sequence {
		t.Errorf("sequence %d became %d, %v", before.Sequence, after.Sequence, err)
	}
}

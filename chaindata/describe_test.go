package chaindata

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/syndtr/goleveldb/leveldb"
)

// header is RLP of 15 fields; parent, root, number and time are what is looked at.
func header(root byte, seconds uint16) []byte {
	var body []byte
	hash := func(fill byte) { body = append(append(body, 0xa0), bytes.Repeat([]byte{fill}, 32)...) }
	hash(1)                                                // parent
	hash(2)                                                // uncles
	body = append(append(body, 0x94), make([]byte, 20)...) // coinbase
	hash(root)
	hash(3)
	hash(4)
	body = append(append(body, 0xb9, 1, 0), make([]byte, 256)...) // bloom
	body = append(body, 0x80, 7, 0x82, 0x75, 0x30, 0x80)          // difficulty, number, gas limit, gas used
	body = append(body, 0x82, byte(seconds>>8), byte(seconds), 0x80)
	return append([]byte{0xf9, byte(len(body) >> 8), byte(len(body))}, body...)
}

func TestDescribeReadsHeadAndPositionWithoutOpening(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		dir := chaindata(t)
		db := openDB(t, dir, smallBuffer)
		head, genesis := bytes.Repeat([]byte{9}, 32), bytes.Repeat([]byte{8}, 32)
		batch := new(leveldb.Batch)
		batch.Put([]byte("LastBlock"), head)
		batch.Put(append([]byte("H"), head...), binary.BigEndian.AppendUint64(nil, 3))
		batch.Put(append(append([]byte("h"), make([]byte, 8)...), 'n'), genesis)
		batch.Put([]byte("drover-position"), []byte("here"))
		batch.Put([]byte("DatabaseVersion"), []byte{9})
		if frozen {
			freezeHeaders(t, filepath.Join(dir, "ancient"), header(5, 99), header(6, 99), header(7, 99), header(0xab, 1234))
		} else {
			batch.Put(append(binary.BigEndian.AppendUint64([]byte("h"), 3), head...), header(0xab, 1234))
		}
		if err := db.Write(batch, nil); err != nil {
			t.Fatal(err)
		}
		db.Close()
		before, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			d, err := Describe(dir, "")
			if err != nil {
				t.Fatalf("frozen %v: %v", frozen, err)
			}
			if d.Head.Number != 3 || !bytes.Equal(d.Head.Hash[:], head) || d.Head.Root != [32]byte(bytes.Repeat([]byte{0xab}, 32)) ||
				d.Head.Time != 1234 || !bytes.Equal(d.Genesis[:], genesis) || d.DatabaseVersion != 9 || string(d.Position) != "here" || d.Marker != nil {
				t.Fatalf("frozen %v: %+v", frozen, d)
			}
			if d.State.Sequence != before.Sequence || d.State.JournalRecords != before.JournalRecords {
				t.Fatalf("the database moved: %+v, before %+v", d.State, before)
			}
		}
	}
}

func freezeHeaders(t *testing.T, ancient string, headers ...[]byte) {
	t.Helper()
	index, data := make([]byte, 6), []byte(nil)
	for _, h := range headers {
		data = append(data, snappy.Encode(nil, h)...)
		index = binary.BigEndian.AppendUint32(append(index, 0, 0), uint32(len(data)))
	}
	if err := os.MkdirAll(filepath.Join(ancient, "chain"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"headers.cidx": index, "headers.0000.cdat": data} {
		if err := os.WriteFile(filepath.Join(ancient, "chain", name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCopyHandsTheFreezersDataToWhoAsksForIt(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "chaindata")
	openDB(t, dir, smallBuffer).Close()
	freezeHeaders(t, filepath.Join(dir, "ancient"), header(1, 1), header(2, 2))
	var taken []string
	cut := true
	opts := CopyOptions{FreezerData: func(_ context.Context, path string, f *os.File, size int64) error {
		taken = append(taken, path)
		if cut { // geth cuts the table while it is read
			cut = false
			freezeHeaders(t, filepath.Join(dir, "ancient"), header(1, 1))
		}
		b := make([]byte, size)
		_, err := f.ReadAt(b, 0)
		return err
	}}
	res, err := Copy(t.Context(), dir, filepath.Join(base, "copy"), opts)
	want := []string{"chain/headers.0000.cdat"}
	if err != nil || !slices.Equal(res.FreezerData, want) || len(taken) != 2 {
		t.Fatalf("%+v, %v, taken %v", res, err, taken)
	}
	if _, err := os.Stat(filepath.Join(base, "copy", "ancient", want[0])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was copied, too: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(base, "copy", "ancient", "chain", "headers.cidx")); err != nil || len(b) != 12 {
		t.Errorf("index: %d bytes, %v", len(b), err)
	}
}

func TestCopyKeepsACopysSequenceAndRefusesADirectoryThatChangesHands(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "chaindata")
	db := openDB(t, dir, smallBuffer)
	if err := db.Write(numberedBatch(1), nil); err != nil {
		t.Fatal(err)
	}
	db.Close()
	for _, role := range []string{RoleSource, RoleCopy} {
		if err := WriteMarker(dir, Marker{Cluster: "c", Timeline: 2, Role: role, Sequence: 5}); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(base, role)
		res, err := Copy(t.Context(), dir, to, CopyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{RoleSource: res.Sequence, RoleCopy: 5}[role]
		if m, err := ReadMarker(to); err != nil || m.Role != RoleCopy || m.Sequence != want {
			t.Errorf("of a %s: %+v, %v, want sequence %d", role, m, err, want)
		}
	}
	_, err := Copy(t.Context(), dir, filepath.Join(base, "late"), CopyOptions{afterManifest: func() {
		if err := WriteMarker(dir, Marker{Cluster: "c", Timeline: 3, Role: RoleSource}); err != nil {
			t.Error(err)
		}
	}})
	if err == nil {
		t.Error("the copy carries a marker of another timeline than its sequence")
	}
	t.Log(err)
}

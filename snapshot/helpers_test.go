package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/chaindata/statecheck/statetest"
)

const testCluster = "test"

func deadline(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// source is a master's chaindata directory with a chain of statetest in it.
type source struct {
	t       testing.TB
	datadir string
	db      *leveldb.DB
	blocks  uint64 // written

	mu   sync.Mutex
	ends []uint64 // the sequence after each block
}

func newSource(t testing.TB, datadir string) *source {
	t.Helper()
	s := &source{t: t, datadir: datadir}
	if err := os.MkdirAll(s.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	s.open()
	t.Cleanup(func() { s.db.Close() })
	if err := chaindata.WriteMarker(s.dir(), chaindata.Marker{Cluster: testCluster, Timeline: 3, Role: chaindata.RoleSource}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *source) dir() string { return chaindataOf(s.datadir) }

// open has a small write buffer and small tables, so that a test's load makes many of both.
func (s *source) open() {
	s.t.Helper()
	var err error
	s.db, err = leveldb.OpenFile(s.dir(), &opt.Options{
		WriteBuffer: 128 << 10, CompactionTableSize: 64 << 10, CompactionTotalSize: 256 << 10, Filter: filter.NewBloomFilter(10),
		DisableSeeksCompaction: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// write adds blocks, each in one batch.
func (s *source) write(blocks int) {
	s.t.Helper()
	for range blocks {
		ops, _ := statetest.Block(s.blocks)
		batch := new(leveldb.Batch)
		for _, op := range ops {
			if op.Value == nil {
				batch.Delete(op.Key)
			} else {
				batch.Put(op.Key, op.Value)
			}
		}
		if err := s.db.Write(batch, nil); err != nil {
			s.t.Error(err)
			return
		}
		s.blocks++
		s.mu.Lock()
		last := uint64(0)
		if n := len(s.ends); n > 0 {
			last = s.ends[n-1]
		}
		s.ends = append(s.ends, last+uint64(len(ops)))
		s.mu.Unlock()
	}
}

// writeUntil writes at full speed until stop is called.
func (s *source) writeUntil() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				s.write(1)
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-done })
}

// contentAt is what the database holds at a sequence.
func (s *source) contentAt(sequence uint64) map[string]string {
	s.t.Helper()
	content := make(map[string]string)
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, end := range s.ends {
		if end > sequence {
			break
		}
		ops, _ := statetest.Block(uint64(n))
		for _, op := range ops {
			if op.Value == nil {
				delete(content, string(op.Key))
			} else {
				content[string(op.Key)] = string(op.Value)
			}
		}
		if end == sequence {
			return content
		}
	}
	s.t.Fatalf("sequence %d is not the end of a block", sequence)
	return nil
}

// sameAt compares a restored datadir with the source at a snapshot's sequence.
func (s *source) sameAt(datadir string, m *Manifest) {
	s.t.Helper()
	want := s.contentAt(m.Sequence)
	db, err := leveldb.OpenFile(chaindataOf(datadir), &opt.Options{ReadOnly: true, Strict: opt.StrictAll})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for ; it.Next(); n++ {
		if value, ok := want[string(it.Key())]; !ok || value != string(it.Value()) {
			s.t.Fatalf("at sequence %d, key %x: has %x, want %x (%v)", m.Sequence, it.Key(), it.Value(), value, ok)
		}
	}
	if err := it.Error(); err != nil || n != len(want) {
		s.t.Fatalf("at sequence %d: %d keys, want %d (%v)", m.Sequence, n, len(want), err)
	}
}

// freeze writes something that looks like geth's freezer.
func (s *source) freeze(bodies int) {
	s.t.Helper()
	dir := filepath.Join(s.dir(), "ancient", "chain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for table, size := range map[string]int{"headers": 5000, "bodies": bodies} {
		index := make([]byte, 12)
		index[10] = 1
		for name, content := range map[string][]byte{
			table + ".meta": {0xc3, 2, 0x80, 12}, table + ".cidx": index, table + ".0000.cdat": noise(size, table),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func noise(n int, seed string) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		b = append(b, sumOf(fmt.Append(nil, seed, i))...)
	}
	return b[:n]
}

func openDir(t testing.TB, path string) *DirStore {
	t.Helper()
	s, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *source) create(store Store, tune func(*CreateOptions)) CreateResult {
	s.t.Helper()
	opts := CreateOptions{Cluster: testCluster, Store: store, Datadir: s.datadir, Node: "here", Logger: testLogger(s.t)}
	if tune != nil {
		tune(&opts)
	}
	res, err := Create(deadline(s.t, time.Minute), opts)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

func verify(t testing.TB, store Store, id string) (*Snapshot, error) {
	t.Helper()
	return Verify(deadline(t, time.Minute), VerifyOptions{
		Cluster: testCluster, Store: store, Select: Select{ID: id}, WorkDir: filepath.Join(t.TempDir(), "verify"), Logger: testLogger(t),
	})
}

func mustVerify(t testing.TB, store Store, id string) *Snapshot {
	t.Helper()
	s, err := verify(t, store, id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func restore(t testing.TB, store Store, datadir, id string) (RestoreResult, error) {
	t.Helper()
	return Restore(deadline(t, time.Minute), RestoreOptions{
		Cluster: testCluster, Store: store, Datadir: datadir, Select: Select{ID: id, Unverified: true}, Logger: testLogger(t),
	})
}

func mustRestore(t testing.TB, store Store, datadir, id string) RestoreResult {
	t.Helper()
	res, err := restore(t, store, datadir, id)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t}, nil))
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// objects lists the store's objects.
func objects(t testing.TB, store Store, prefix string) map[string]Object {
	t.Helper()
	found := make(map[string]Object)
	for o, err := range store.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		found[o.Key] = o
	}
	return found
}

// nothingLeft asserts that no temporary file or staging directory is anywhere below.
func nothingLeft(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := d.Name()
			if strings.HasPrefix(name, "run-") || strings.HasPrefix(name, "put-") || strings.Contains(name, ".partial-") ||
				strings.HasSuffix(name, partEnding) || strings.HasPrefix(name, restoringName) {
				t.Errorf("left behind: %s", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func readAll(t testing.TB, store Store, key string) []byte {
	t.Helper()
	r, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJSON(v any) string {
	b, _ := json.MarshalIndent(v, "", " ")
	return string(b)
}

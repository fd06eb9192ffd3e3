package chaindata

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

func TestInspectKnowsTheSequenceThatLevelDBGoesOnWith(t *testing.T) {
	dir := chaindata(t)
	rng := rand.New(rand.NewSource(3))
	for round := range 12 {
		var before State
		if round > 0 {
			var err error
			if before, err = Inspect(dir); err != nil {
				t.Fatal(err)
			}
		}
		db := openDB(t, dir, smallBuffer)
		for range rng.Intn(200) {
			if err := db.Write(randomBatch(rng, 20, 300), nil); err != nil {
				t.Fatal(err)
			}
		}
		live, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
		state, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		if live.Sequence != state.Sequence {
			t.Fatalf("live %d, at rest %d", live.Sequence, state.Sequence)
		}
		db = openDB(t, dir, 4<<20)
		put(t, db, 1)
		db.Close()
		after, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		var first uint64
		_, err = scanJournal(filepath.Join(dir, journalName(after.Journals[len(after.Journals)-1])), func(b Batch) error {
			first = b.First
			return nil
		})
		if err != nil || first != state.Reopened()+1 {
			t.Fatalf("round %d: the first batch after a restart is at %d, Reopened said %d (%v; before %+v)", round, first, state.Reopened(), err, before)
		}
		tables, err := filepath.Glob(filepath.Join(dir, "*.ldb"))
		if err != nil || len(tables) != after.Tables {
			t.Fatalf("%d table files, the manifest has %d", len(tables), after.Tables)
		}
	}
}

func TestInspectOfALiveDatabaseNeverGoesBack(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, smallBuffer)
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		for seq := uint64(1); ; seq += numberedOps {
			select {
			case <-stop:
				return
			default:
			}
			if err := db.Write(numberedBatch(seq), nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var last uint64
	for range 200 {
		state, err := Inspect(dir)
		if err != nil {
			t.Error(err)
			break
		}
		if state.Sequence < last || state.Sequence%numberedOps != 0 {
			t.Errorf("sequence %d after %d", state.Sequence, last)
		}
		last = state.Sequence
	}
	close(stop)
	<-done
	db.Close()
}

func TestNoDatabaseIsSaidSo(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "absent")} {
		if _, err := Inspect(dir); !errors.Is(err, ErrNoDatabase) {
			t.Errorf("Inspect(%s): %v", dir, err)
		}
		if err := CheckSource(dir); err != nil {
			t.Errorf("CheckSource(%s): %v", dir, err)
		}
	}
	if _, err := Lock(filepath.Join(empty, "absent")); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("Lock: %v", err)
	}
	if _, err := Copy(t.Context(), empty, filepath.Join(t.TempDir(), "copy"), CopyOptions{}); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("Copy: %v", err)
	}
}

func TestPebbleIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"CURRENT", "OPTIONS-000003", "MANIFEST-000001"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("MANIFEST-000001\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Inspect(dir); !errors.Is(err, ErrUnsupportedSource) {
		t.Errorf("Inspect: %v", err)
	}
	if err := CheckSource(dir); !errors.Is(err, ErrUnsupportedSource) {
		t.Errorf("CheckSource: %v", err)
	}
	if _, err := NewFollower(FollowOptions{Dir: dir}); !errors.Is(err, ErrUnsupportedSource) {
		t.Errorf("NewFollower: %v", err)
	}
	if _, err := Copy(t.Context(), dir, filepath.Join(t.TempDir(), "copy"), CopyOptions{}); !errors.Is(err, ErrUnsupportedSource) {
		t.Errorf("Copy: %v", err)
	}
}

func TestLockKeepsLevelDBOutAndTheOtherWayRound(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, smallBuffer)
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v", err)
	}
	db.Close()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if db, err := leveldb.OpenFile(dir, nil); err == nil {
		db.Close()
		t.Fatal("goleveldb opened a locked database")
	}
	release()
	openDB(t, dir, smallBuffer).Close()
}

func TestCurrentManifestIsTheOneThatLevelDBWouldOpen(t *testing.T) {
	dir := chaindata(t)
	openDB(t, dir, smallBuffer).Close()
	now, err := currentManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want uint64) {
		t.Helper()
		if got, err := currentManifest(dir); err != nil || got != want {
			t.Fatalf("%d, %v, want %d", got, err, want)
		}
		// goleveldb agrees
		got, err := tableStorageMeta(dir)
		if err != nil || got != want {
			t.Fatalf("goleveldb: %d, %v, want %d", got, err, want)
		}
	}
	expect(now)
	write(fmt.Sprintf("CURRENT.%d", now+7), manifestName(now+7)+"\n") // its manifest is missing
	expect(now)
	content, err := os.ReadFile(filepath.Join(dir, manifestName(now)))
	if err != nil {
		t.Fatal(err)
	}
	write(manifestName(now+7), string(content))
	expect(now + 7)
	os.Remove(filepath.Join(dir, fmt.Sprintf("CURRENT.%d", now+7)))
	write("CURRENT", manifestName(now)) // cut before the newline
	if _, err := currentManifest(dir); !errors.Is(err, ErrCorruptManifest) {
		t.Fatalf("got %v", err)
	}
	write("CURRENT.bak", manifestName(now)+"\n")
	expect(now)
}

func TestDamagedManifestIsAnError(t *testing.T) {
	dir := chaindata(t)
	db := openDB(t, dir, smallBuffer)
	for seq := uint64(1); seq < 5000; seq += numberedOps {
		if err := db.Write(numberedBatch(seq), nil); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	num, err := currentManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, manifestName(num))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[len(bad)/2] ^= 4
	if err := os.WriteFile(path, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(dir); !errors.Is(err, ErrCorruptManifest) {
		t.Fatalf("got %v", err)
	}
	// A record cut short by a crash is not damage: the one before it is in force.
	if err := os.WriteFile(path, good[:len(good)-3], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(dir); err != nil {
		t.Fatal(err)
	}
}

func FuzzManifestRecord(f *testing.F) {
	dir := chaindata(f)
	db := openDB(f, dir, smallBuffer)
	for seq := uint64(1); seq < 3000; seq += numberedOps {
		if err := db.Write(numberedBatch(seq), nil); err != nil {
			f.Fatal(err)
		}
	}
	db.Close()
	num, err := currentManifest(dir)
	if err != nil {
		f.Fatal(err)
	}
	file, err := os.Open(filepath.Join(dir, manifestName(num)))
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	r := newChunkReader(file)
	for {
		record, err := r.next()
		if err != nil {
			break
		}
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s session
		if err := s.apply(data); err != nil && !errors.Is(err, ErrCorruptManifest) {
			t.Fatal(err)
		}
	})
}

func TestMarkerIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadMarker(dir); !errors.Is(err, ErrNoMarker) {
		t.Fatalf("got %v", err)
	}
	want := Marker{Cluster: "main", Timeline: 4, Role: RoleSource}
	if err := WriteMarker(dir, want); err != nil {
		t.Fatal(err)
	}
	want.Format = markerFormat
	got, err := ReadMarker(dir)
	if want.Inode = got.Inode; err != nil || got != want || got.Inode == 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, content := range map[string]string{
		"future":       `{"format":2,"cluster":"main","timeline":4,"role":"source"}`,
		"unknown key":  `{"format":1,"cluster":"main","timeline":4,"role":"source","x":1}`,
		"unknown role": `{"format":1,"cluster":"main","timeline":4,"role":"other"}`,
		"no cluster":   `{"format":1,"timeline":4,"role":"source"}`,
		"no timeline":  `{"format":1,"cluster":"main","role":"copy"}`,
		"cut":          `{"format":1,"cluster":"ma`,
		"empty":        ``,
	} {
		if err := os.WriteFile(filepath.Join(dir, MarkerName), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if m, err := ReadMarker(dir); err == nil {
			t.Errorf("%s: read as %+v", name, m)
		}
	}
	// LevelDB leaves the file alone.
	db := openDB(t, dir, smallBuffer)
	db.Close()
	openDB(t, dir, smallBuffer).Close()
	if _, err := os.Stat(filepath.Join(dir, MarkerName)); err != nil {
		t.Fatal(err)
	}
}

// tableStorageMeta asks goleveldb's own storage which manifest is in force.
func tableStorageMeta(dir string) (uint64, error) {
	s, err := storage.OpenFile(dir, true)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	fd, err := s.GetMeta()
	return uint64(fd.Num), err
}

func TestACopyMadeWithItsMarkerIsNotTheSource(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	if err := WriteMarker(dir, Marker{Cluster: "main", Timeline: 4, Role: RoleSource}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, MarkerName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, MarkerName), content, 0o644); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]bool{dir: true, copied: false} {
		m, err := ReadMarker(where)
		if err != nil || m.IsSource(where) != want {
			t.Errorf("%s: IsSource %v, %v, want %v", where, m.IsSource(where), err, want)
		}
	}
}

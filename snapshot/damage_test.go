package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/drover-io/drover/chaindata/statecheck/statetest"
)

// victims returns an object of each class of files: what it is called, and the object's path in the store.
func victims(t *testing.T, store *DirStore, s *Snapshot) map[string]string {
	t.Helper()
	files, err := s.files(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{
		"file list": store.path(keys(testCluster).files(s.ID)),
		"manifest":  store.path(keys(testCluster).manifest(s.ID)),
	}
	for _, f := range files {
		class := ""
		switch {
		case isTable(f.Path):
			class = "table"
		case strings.HasSuffix(f.Path, ".log"):
			class = "journal"
		case strings.HasPrefix(f.Path, "MANIFEST"):
			class = "LevelDB's manifest"
		case strings.HasSuffix(f.Path, ".cdat"):
			class = "freezer data"
		case strings.HasSuffix(f.Path, ".cidx"):
			class = "freezer index"
		case f.Path == "CURRENT", f.Path == "drover.json":
			class = f.Path
		}
		if class != "" && len(f.Pieces) > 0 {
			found[class] = store.path(keys(testCluster).object(f.Pieces[0].Object))
		}
	}
	if len(found) != 9 {
		t.Fatalf("classes: %v", found)
	}
	return found
}

func copyStore(t *testing.T, from *DirStore, to string) *DirStore {
	t.Helper()
	if out, err := exec.Command("cp", "-r", from.root, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return openDir(t, to)
}

// fault 14. A hard-linked table that is not verified yet has no checksum: LevelDB's own have to find the flip.
func TestOneByteFlippedOrOneFileMissingIsFoundBeforeASnapshotIsUsable(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.freeze(50_000)
	src.write(100)
	for kind, tune := range storeKinds {
		template := openDir(t, filepath.Join(base, "store "+kind))
		src.create(template, tune)
		for class := range victims(t, template, snapshots(t, template)[0]) {
			for fault, inject := range map[string]func(t *testing.T, path string){"flipped": flip, "missing": drop} {
				t.Run(kind+"/"+class+" "+fault, func(t *testing.T) {
					store := copyStore(t, template, filepath.Join(t.TempDir(), "store"))
					s := snapshots(t, store)[0]
					inject(t, victims(t, store, s)[class])
					_, err := verify(t, store, s.ID)
					switch {
					case class == "manifest" && fault == "missing":
						if !errors.Is(err, ErrNoSnapshot) {
							t.Fatalf("verify: %v", err)
						}
					case class == "manifest":
						if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrCorrupt) {
							t.Fatalf("verify: %v", err)
						}
					case !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "\n"):
						t.Fatalf("verify: %v", err)
					}
					t.Log(err)
					if _, err := Find(t.Context(), store, testCluster, Select{}); !errors.Is(err, ErrNoSnapshot) {
						t.Fatalf("it is usable: %v", err)
					}
					datadir := filepath.Join(t.TempDir(), "restored")
					_, err = restore(t, store, datadir, s.ID)
					if linked := kind == "hard links" && class == "table" && fault == "flipped"; err == nil && !linked {
						t.Error("it could be restored")
					}
				})
			}
		}
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flipAt(t, path, fi.Size()/2)
}

func flipAt(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func drop(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A table that was hard-linked has no checksum of ours yet, and most of an archive's blocks are of no state that is walked.
func TestAFlipAnywhereInATableIsFoundByItsFirstVerification(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(100)
	template := openDir(t, filepath.Join(base, "template"))
	src.create(template, nil)
	store := copyStore(t, template, filepath.Join(base, "store"))
	files, err := snapshots(t, store)[0].files(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	flips := 0
	for _, f := range files {
		if !isTable(f.Path) {
			continue
		}
		path := store.path(keys(testCluster).object(f.Pieces[0].Object))
		for _, at := range []int64{0, f.Size / 3, f.Size * 9 / 10, f.Size - 1} {
			flipAt(t, path, at)
			if _, err := verify(t, store, ""); !errors.Is(err, ErrCorrupt) {
				t.Errorf("byte %d of %s, %d bytes long: %v", at, f.Path, f.Size, err)
			}
			flipAt(t, path, at)
			flips++
		}
	}
	if flips < 8 {
		t.Errorf("%d flips", flips)
	}
	mustVerify(t, store, "")
}

func TestATableThatIsDamagedAfterItsVerificationIsFound(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(100)
	template := openDir(t, filepath.Join(base, "template"))
	first := src.create(template, nil).Manifest.ID
	mustVerify(t, template, first)
	store := copyStore(t, template, filepath.Join(base, "store"))
	s := snapshots(t, store)[0]
	flip(t, func() string {
		files, err := s.files(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if isTable(f.Path) {
				return store.path(keys(testCluster).object(f.Pieces[0].Object))
			}
		}
		t.Fatal("no table")
		return ""
	}())
	if _, err := restore(t, store, filepath.Join(base, "restored"), s.ID); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("restore: %v", err)
	}
	if _, err := os.Stat(chaindataOf(filepath.Join(base, "restored"))); err == nil {
		t.Fatal("chaindata is there")
	}
	if _, err := verify(t, store, s.ID); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("verify: %v", err)
	}
	if _, err := Find(t.Context(), store, testCluster, Select{}); !errors.Is(err, ErrNoSnapshot) {
		t.Fatalf("it is still usable: %v", err)
	}
}

func TestAStateWithoutOneNodeIsNotUsable(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(40)
	_, head := statetest.Block(src.blocks - 1)
	// Taken away by a write: the files are whole, every checksum is right.
	if err := src.db.Delete(head.Root[:], nil); err != nil {
		t.Fatal(err)
	}
	store := openDir(t, filepath.Join(base, "store"))
	src.create(store, nil)
	_, err := verify(t, store, "")
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "account trie node") {
		t.Fatal(err)
	}
	t.Log(err)
}

// fullStore has no space left behind so many bytes.
type fullStore struct {
	Store
	left atomic.Int64
}

func (s *fullStore) Put(ctx context.Context, key string, body io.Reader, size int64) error {
	if s.left.Add(-size) < 0 {
		_, _ = io.CopyN(io.Discard, body, size/2)
		return (&DirStore{name: "full"}).fail(key, syscall.ENOSPC)
	}
	return s.Store.Put(ctx, key, body, size)
}

func (s *fullStore) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return s.Store.List(ctx, prefix)
}

// fault 16
func TestAFullStoreIsOneClearErrorAndTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.freeze(200_000)
	src.write(100)
	src.settle()
	dir := openDir(t, filepath.Join(base, "store"))
	store := &fullStore{Store: dir}
	store.left.Store(400_000)
	opts := CreateOptions{Cluster: testCluster, Store: store, Datadir: src.datadir, Compression: CompressNone}
	_, err := Create(t.Context(), opts)
	if !errors.Is(err, ErrFull) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	if n := len(snapshots(t, dir)); n != 0 {
		t.Fatalf("%d snapshots", n)
	}
	nothingLeft(t, base)
	had := len(objects(t, dir, testCluster+"/objects/"))
	store.left.Store(1 << 40)
	res, err := Create(t.Context(), opts)
	if err != nil || had == 0 || res.Reused == 0 {
		t.Fatalf("%d objects were there: %+v, %v", had, res, err)
	}
	mustVerify(t, dir, "")
}

// A power cut leaves files that were not synced short or full of zeros. All that is ever left unsynced are temporary files
// and the cache of checksums.
func TestWhatAPowerCutLeavesUnsyncedIsNotBelieved(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.freeze(100_000)
	src.write(100)
	src.settle()
	store := openDir(t, filepath.Join(base, "store"))
	copies := func(o *CreateOptions) { o.NoHardLinks = true }
	src.create(store, copies)
	area := filepath.Join(filepath.Dir(src.dir()), stageName)
	sums, err := os.ReadFile(filepath.Join(area, "sums"))
	if err != nil || len(sums) == 0 {
		t.Fatalf("no checksums are kept: %v", err)
	}
	for name, damage := range map[string][]byte{
		"short": sums[:len(sums)*2/3], "zeros": append(bytes.Clone(sums[:len(sums)/2]), make([]byte, len(sums)/2)...), "empty": nil,
		"wrong": bytes.ReplaceAll(sums, []byte("a"), []byte("b")), "noise": noise(10_000, "x"),
	} {
		if err := os.WriteFile(filepath.Join(area, "sums"), damage, 0o644); err != nil {
			t.Fatal(err)
		}
		stage := filepath.Join(area, "run-1")
		for path, content := range map[string]string{
			stage + ".lock": "", stage + "/chaindata/CURRENT": "", filepath.Join(store.root, tempDir, "put-1"): "ha",
		} {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		src.write(2)
		m := src.create(store, copies).Manifest
		if _, err := verify(t, store, m.ID); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		nothingLeft(t, base)
	}
}

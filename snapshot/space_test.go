package snapshot

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/tools/disk"
)

// smallSource is a snapshot whose tables are a few hundred kilobytes, as is its freezer.
func smallSource(t *testing.T) (src *source, store *DirStore, m *Manifest) {
	t.Helper()
	base := t.TempDir()
	src = newSource(t, filepath.Join(base, "datadir"))
	src.freeze(300_000)
	src.write(100)
	store = openDir(t, filepath.Join(base, "store"))
	return src, store, src.create(store, nil).Manifest
}

// fault 16
func TestAFullDiskStopsARestoreThatIsFinishedLater(t *testing.T) {
	small := disk.Small(t, "20m")
	src, store, m := smallSource(t)
	datadir := filepath.Join(small.Dir, "datadir")
	_, err := Restore(deadline(t, time.Minute), RestoreOptions{
		Cluster: testCluster, Store: store, Datadir: datadir, Select: Select{ID: m.ID, Unverified: true},
		at: func(step string) {
			if step == "prepared" { // somebody else fills the disk
				small.Resize(t, "700k")
			}
		},
	})
	if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "goes on") {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	small.Resize(t, "20m")
	if !mustRestore(t, store, datadir, m.ID).Resumed {
		t.Error("it started over")
	}
	src.sameAt(datadir, m)
}

// fault 16
func TestWhatDoesNotFitIsNotBegun(t *testing.T) {
	small := disk.Small(t, "700k")
	src, store, m := smallSource(t)
	datadir := filepath.Join(small.Dir, "datadir")
	refused := func(err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "bytes)") != 2 {
			t.Fatalf("got %v", err)
		}
		t.Log(err)
	}
	begun := func(step string) {
		if step == "prepared" {
			t.Error("it began")
		}
	}
	opts := RestoreOptions{Cluster: testCluster, Store: store, Datadir: datadir, Select: Select{ID: m.ID, Unverified: true}, at: begun}
	_, err := Restore(deadline(t, time.Minute), opts)
	refused(err)
	check := VerifyOptions{Cluster: testCluster, Store: store, Select: Select{ID: m.ID}, WorkDir: filepath.Join(small.Dir, "verify")}
	_, err = Verify(deadline(t, time.Minute), check)
	refused(err)
	nothingLeft(t, filepath.Join(small.Dir, "verify"))
	if s, err := Find(t.Context(), store, testCluster, Select{ID: m.ID, Unverified: true}); err != nil || s.Usable() {
		t.Errorf("usable: %v, %v", s, err)
	}
	opts.at, opts.IgnoreFreeSpace = nil, true
	if _, err = Restore(deadline(t, time.Minute), opts); !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "still to be written") {
		t.Errorf("told to begin: %v", err)
	}

	// What is there already is not to be written again.
	small.Resize(t, "20m")
	opts.IgnoreFreeSpace = false
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	opts.at = func(step string) {
		if step == "fetched" {
			cancel(stop)
		}
	}
	if _, err := Restore(ctx, opts); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(small.Dir, &fs); err != nil {
		t.Fatal(err)
	}
	used := (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
	small.Resize(t, fmt.Sprint(used+64<<10))
	opts.at = nil
	if res, err := Restore(t.Context(), opts); err != nil || !res.Resumed {
		t.Fatalf("%+v, %v", res, err)
	}
	src.sameAt(datadir, m)
}

func TestTablesThatBecomeHardLinksNeedNoSpace(t *testing.T) {
	small := disk.Small(t, "20m")
	src := newSource(t, filepath.Join(small.Dir, "datadir"))
	src.write(400)
	src.settle()
	store := openDir(t, filepath.Join(small.Dir, "store"))
	m := src.create(store, nil).Manifest
	var fs syscall.Statfs_t
	if err := syscall.Statfs(small.Dir, &fs); err != nil {
		t.Fatal(err)
	}
	// Room for journal and manifest, not for the tables.
	small.Resize(t, fmt.Sprint((fs.Blocks-fs.Bfree)*uint64(fs.Bsize)+400<<10))
	if m.Files.Bytes < 800<<10 {
		t.Fatalf("the database has %d bytes only", m.Files.Bytes)
	}
	opts := RestoreOptions{
		Cluster: testCluster, Store: store, Datadir: filepath.Join(small.Dir, "copied"), Select: Select{ID: m.ID, Unverified: true}, NoHardLinks: true,
	}
	if _, err := Restore(deadline(t, time.Minute), opts); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("copied: %v", err)
	}
	opts.Datadir, opts.NoHardLinks = filepath.Join(small.Dir, "linked"), false
	if _, err := Restore(deadline(t, time.Minute), opts); err != nil {
		t.Fatalf("linked: %v", err)
	}
	src.sameAt(opts.Datadir, m)
}

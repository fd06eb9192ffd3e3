package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountSmallDisk mounts a tmpfs; resize changes how much it holds.
func mountSmallDisk(t *testing.T, size string) (dir string, resize func(size string)) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no small disk: %v", err)
		}
		t.Skip("no small disk: mounting needs root:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func(size string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

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
	disk, resize := mountSmallDisk(t, "20m")
	src, store, m := smallSource(t)
	datadir := filepath.Join(disk, "datadir")
	_, err := Restore(deadline(t, time.Minute), RestoreOptions{
		Cluster: testCluster, Store: store, Datadir: datadir, Select: Select{ID: m.ID, Unverified: true},
		at: func(step string) {
			if step == "prepared" { // somebody else fills the disk
				resize("700k")
			}
		},
	})
	if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "goes on") {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	resize("20m")
	if !mustRestore(t, store, datadir, m.ID).Resumed {
		t.Error("it started over")
	}
	src.sameAt(datadir, m)
}

// fault 16
func TestWhatDoesNotFitIsNotBegun(t *testing.T) {
	disk, resize := mountSmallDisk(t, "700k")
	src, store, m := smallSource(t)
	datadir := filepath.Join(disk, "datadir")
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
	check := VerifyOptions{Cluster: testCluster, Store: store, Select: Select{ID: m.ID}, WorkDir: filepath.Join(disk, "verify")}
	_, err = Verify(deadline(t, time.Minute), check)
	refused(err)
	nothingLeft(t, filepath.Join(disk, "verify"))
	if s, err := Find(t.Context(), store, testCluster, Select{ID: m.ID, Unverified: true}); err != nil || s.Usable() {
		t.Errorf("usable: %v, %v", s, err)
	}
	opts.at, opts.IgnoreFreeSpace = nil, true
	if _, err = Restore(deadline(t, time.Minute), opts); !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "still to be written") {
		t.Errorf("told to begin: %v", err)
	}

	// What is there already is not to be written again.
	resize("20m")
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
	if err := syscall.Statfs(disk, &fs); err != nil {
		t.Fatal(err)
	}
	used := (fs.Blocks - fs.Bfree) * uint64(fs.Bsize)
	resize(fmt.Sprint(used + 64<<10))
	opts.at = nil
	if res, err := Restore(t.Context(), opts); err != nil || !res.Resumed {
		t.Fatalf("%+v, %v", res, err)
	}
	src.sameAt(datadir, m)
}

func TestTablesThatBecomeHardLinksNeedNoSpace(t *testing.T) {
	disk, resize := mountSmallDisk(t, "20m")
	src := newSource(t, filepath.Join(disk, "datadir"))
	src.write(400)
	src.settle()
	store := openDir(t, filepath.Join(disk, "store"))
	m := src.create(store, nil).Manifest
	var fs syscall.Statfs_t
	if err := syscall.Statfs(disk, &fs); err != nil {
		t.Fatal(err)
	}
	// Room for journal and manifest, not for the tables.
	resize(fmt.Sprint((fs.Blocks-fs.Bfree)*uint64(fs.Bsize) + 400<<10))
	if m.Files.Bytes < 800<<10 {
		t.Fatalf("the database has %d bytes only", m.Files.Bytes)
	}
	opts := RestoreOptions{
		Cluster: testCluster, Store: store, Datadir: filepath.Join(disk, "copied"), Select: Select{ID: m.ID, Unverified: true}, NoHardLinks: true,
	}
	if _, err := Restore(deadline(t, time.Minute), opts); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("copied: %v", err)
	}
	opts.Datadir, opts.NoHardLinks = filepath.Join(disk, "linked"), false
	if _, err := Restore(deadline(t, time.Minute), opts); err != nil {
		t.Fatalf("linked: %v", err)
	}
	src.sameAt(opts.Datadir, m)
}

package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/storetest"
	"github.com/drover-io/drover/tools/disk"
)

func openDir(t *testing.T, path string) *snapshot.DirStore {
	t.Helper()
	s, err := snapshot.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDirectoryStoreConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) snapshot.Store { return openDir(t, filepath.Join(t.TempDir(), "store")) })
}

func TestDirectoryStoreRefusesKeysThatLeaveIt(t *testing.T) {
	store := openDir(t, filepath.Join(t.TempDir(), "store"))
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".lock", "a/.tmp/b", "a\x00b", "a b", "a\\b", "ä"} {
		if err := store.Put(t.Context(), key, strings.NewReader("x"), 1); err == nil {
			t.Errorf("put %q", key)
		}
		if r, err := store.Get(t.Context(), key, 0, -1); err == nil {
			r.Close()
			t.Errorf("get %q", key)
		}
		if err := store.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %q", key)
		}
	}
}

func TestDirectoryStoreThatIsNotMountedIsNotEmpty(t *testing.T) {
	base := t.TempDir()
	if _, err := snapshot.OpenDir(filepath.Join(base, "mnt", "store")); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Fatal(err)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.OpenDir(file); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(base, "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	store := openDir(t, filepath.Join(base, "mnt", "store"))
	if err := os.Remove(filepath.Join(base, "mnt")); err != nil {
		t.Fatal(err)
	}
	for _, err := range store.List(t.Context(), "") {
		if !errors.Is(err, snapshot.ErrUnreachable) {
			t.Errorf("list: %v", err)
		}
	}
	if _, err := store.Get(t.Context(), "a", 0, -1); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Errorf("get: %v", err)
	}
}

func TestDirectoryStoreThatIsFullSaysSoAndGoesOn(t *testing.T) {
	small := disk.Small(t, "4m").Dir
	store := openDir(t, filepath.Join(small, "store"))
	put := func(key string, n int) error {
		return store.Put(t.Context(), key, bytes.NewReader(make([]byte, n)), int64(n))
	}
	if err := put("c/first", 1<<20); err != nil {
		t.Fatal(err)
	}
	err := put("c/second", 8<<20)
	if !errors.Is(err, snapshot.ErrFull) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	if _, err := store.Get(t.Context(), "c/second", 0, -1); !errors.Is(err, snapshot.ErrNotFound) {
		t.Fatalf("something of it is there: %v", err)
	}
	if err := put("c/third", 2<<20); err != nil {
		t.Fatalf("the failed one takes up space: %v", err)
	}
}

// stuck is a body that ends the test's patience when a Put is in its middle.
type stuck struct {
	once bool
	hold chan struct{}
	mid  chan struct{}
}

func (r *stuck) Read(p []byte) (int, error) {
	if !r.once {
		r.once = true
		return copy(p, "half"), nil
	}
	close(r.mid)
	<-r.hold
	return 0, io.ErrUnexpectedEOF
}

func TestCleanTakesOnlyWhatNobodyWrites(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	store := openDir(t, root)
	body := &stuck{hold: make(chan struct{}), mid: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- store.Put(context.Background(), "c/x", body, 100) }()
	<-body.mid
	abandoned := filepath.Join(root, ".tmp", "put-of-a-dead-process")
	if err := os.WriteFile(abandoned, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := store.Clean(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(root, ".tmp"))
	if err != nil || len(left) != 1 || left[0].Name() == filepath.Base(abandoned) {
		t.Errorf("left: %v, %v", left, err)
	}
	close(body.hold)
	if err := <-done; err == nil {
		t.Error("the cut put succeeded")
	}
}

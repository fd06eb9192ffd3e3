package snapshot

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
)

// gethBinary finds geth v1.17.7; the test is skipped without it.
func gethBinary(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("DROVER_TEST_GETH"); bin != "" {
		return bin
	}
	for _, bin := range []string{"../.cache/bin/geth-1.17.7", "/work/main/.cache/bin/geth-1.17.7"} {
		if path, err := filepath.Abs(bin); err == nil {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	t.Skip("no geth: set DROVER_TEST_GETH, or run make geth")
	return ""
}

var archiveArgs = []string{"--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "archive", "--ipcdisable", "--verbosity", "2"}

// startGeth runs a geth until stop is called or it ends by itself.
func startGeth(t *testing.T, args ...string) (stop func(os.Signal), ended chan struct{}) {
	t.Helper()
	cmd := exec.Command(gethBinary(t), args...)
	var output bytes.Buffer
	cmd.Stderr = &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	stop = func(sig os.Signal) {
		_ = cmd.Process.Signal(sig)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	t.Cleanup(func() {
		stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("geth said:\n%s", output.String())
		}
	})
	return stop, ended
}

// headOf waits until a live geth's head has reached a block, and marks the directory as a master does.
func waitForHead(t *testing.T, datadir string, block uint64) {
	t.Helper()
	dir := chaindataOf(datadir)
	ctx := deadline(t, time.Minute)
	for {
		if d, err := chaindata.Describe(dir, ""); err == nil && d.Head.Number >= block {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("geth did not reach block %d", block)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := chaindata.WriteMarker(dir, chaindata.Marker{Cluster: testCluster, Timeline: 1, Role: chaindata.RoleSource}); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotOfALiveGethStartsAnotherGeth(t *testing.T) {
	base := t.TempDir()
	datadir := filepath.Join(base, "master")
	stop, _ := startGeth(t, append([]string{"--dev", "--dev.period", "1", "--datadir", datadir}, archiveArgs...)...)
	waitForHead(t, datadir, 3)
	store := openDir(t, filepath.Join(base, "store"))
	res, err := Create(deadline(t, time.Minute), CreateOptions{Cluster: testCluster, Store: store, Datadir: datadir, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	stop(syscall.SIGKILL)
	t.Logf("%s", asJSON(res.Manifest))
	if m := res.Manifest; m.Role != RoleMaster || m.Head.Number < 3 || m.DatabaseVersion != 9 || m.Timeline != 1 {
		t.Errorf("manifest: %s", asJSON(m))
	}
	s := mustVerify(t, store, "")
	t.Logf("%s", asJSON(s.Verified))

	restored := filepath.Join(base, "restored")
	got, err := Restore(deadline(t, time.Minute), RestoreOptions{Cluster: testCluster, Store: store, Datadir: restored, Logger: testLogger(t)})
	if err != nil || got.Snapshot.ID != res.Manifest.ID {
		t.Fatal(got, err)
	}
	d, err := chaindata.Describe(chaindataOf(restored), "")
	if err != nil || d.Head.Number != res.Manifest.Head.Number {
		t.Fatalf("restored: %+v, %v", d.Head, err)
	}
	startGeth(t, append([]string{"--dev", "--dev.period", "1", "--datadir", restored}, archiveArgs...)...)
	waitForHead(t, restored, res.Manifest.Head.Number+2)
}

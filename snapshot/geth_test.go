package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	localgeth "github.com/drover-io/drover/tools/geth"
)

func gethBinary(t *testing.T) string {
	t.Helper()
	path, err := localgeth.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
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
	t.Parallel()
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

// chainDir holds genesis.json and chain.rlp of tools/chaingen: DROVER_TEST_CHAIN, or a small one made now.
func chainDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("DROVER_TEST_CHAIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	out, err := exec.Command("go", "run", "../tools/chaingen", "--out", dir, "--blocks", "150", "--txs", "100").CombinedOutput()
	if err != nil {
		t.Fatalf("chaingen: %v\n%s", err, out)
	}
	return dir
}

// recorder keeps all batches that a live database writes.
type recorder struct {
	f       *chaindata.Follower
	done    chan error
	batches []chaindata.Batch
}

func record(t *testing.T, dir string) *recorder {
	t.Helper()
	f, err := chaindata.NewFollower(chaindata.FollowOptions{Dir: dir, From: 1, SpoolDir: filepath.Join(filepath.Dir(dir), "spool")})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{f: f, done: make(chan error, 1)}
	go func() {
		for {
			b, err := f.Next(context.Background())
			if err != nil {
				r.done <- err
				return
			}
			r.batches = append(r.batches, b)
		}
	}()
	t.Cleanup(func() { f.Close() })
	return r
}

func (r *recorder) finish(t *testing.T) {
	t.Helper()
	r.f.SourceStopped()
	if err := <-r.done; !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// same compares a restored database, key by key, with what was written up to a sequence.
func (r *recorder) same(t *testing.T, datadir string, sequence uint64) {
	t.Helper()
	want := make(map[string][]byte)
	for _, b := range r.batches {
		if b.Last() > sequence {
			break
		}
		for op := range b.Ops() {
			if op.Delete {
				delete(want, string(op.Key))
			} else {
				want[string(op.Key)] = op.Value
			}
		}
	}
	db, err := leveldb.OpenFile(chaindataOf(datadir), &opt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for ; it.Next(); n++ {
		if value, ok := want[string(it.Key())]; !ok || !bytes.Equal(value, it.Value()) {
			t.Fatalf("at sequence %d: key %x differs", sequence, it.Key())
		}
	}
	if err := it.Error(); err != nil || n != len(want) {
		t.Fatalf("at sequence %d: %d keys, want %d (%v)", sequence, n, len(want), err)
	}
	t.Logf("sequence %d: %d keys are the same", sequence, n)
}

// Under full load: geth import at top speed, compaction running.
func TestSnapshotsDuringAGethImportAreTheMasterAtTheirSequence(t *testing.T) {
	t.Parallel()
	chain, base := chainDir(t), t.TempDir()
	datadir := filepath.Join(base, "master")
	storage := archiveArgs[:4]
	_, ended := startGeth(t, append(append([]string{"init", "--datadir", datadir}, storage...), filepath.Join(chain, "genesis.json"))...)
	<-ended
	waitForHead(t, datadir, 0)
	rec := record(t, chaindataOf(datadir))
	_, ended = startGeth(t, append(append([]string{"import", "--datadir", datadir, "--cache", "128", "--gcmode", "archive"}, storage...), filepath.Join(chain, "chain.rlp"))...)
	stores := []*DirStore{openDir(t, filepath.Join(base, "links")), openDir(t, filepath.Join(base, "copies"))}
	var made [2][]*Manifest
	for i := 0; ; i++ {
		select {
		case <-ended:
		default:
			if i < 10 {
				res, err := Create(deadline(t, 2*time.Minute), CreateOptions{
					Cluster: testCluster, Store: stores[i%2], Datadir: datadir, NoHardLinks: i%2 == 1, Compression: []Compression{CompressNone, CompressZstd}[i%2],
				})
				if err != nil {
					t.Fatal(err)
				}
				m := res.Manifest
				t.Logf("block %d: %d files, %d bytes; %d links, moved %d, reused %d, in %v", m.Head.Number, m.Files.Count, m.Files.Bytes,
					res.Links, res.Moved, res.Reused, res.Elapsed.Round(time.Millisecond))
				made[i%2] = append(made[i%2], m)
				select { // spread over the import
				case <-ended:
				case <-time.After(300 * time.Millisecond):
				}
				continue
			}
			<-ended
		}
		break
	}
	rec.finish(t)
	if len(made[1]) == 0 {
		t.Fatal("the import was over too soon")
	}
	for kind, manifests := range made {
		for i, m := range manifests {
			s := mustVerify(t, stores[kind], m.ID)
			t.Logf("verified block %d in %.1fs: %d trie nodes, %d accounts, %d slots", m.Head.Number, s.Verified.Seconds,
				s.Verified.TrieNodes, s.Verified.Accounts, s.Verified.Slots)
			restored := filepath.Join(base, fmt.Sprint("restored", kind, i))
			mustRestore(t, stores[kind], restored, m.ID)
			rec.same(t, restored, m.Sequence)
			if err := os.RemoveAll(restored); err != nil {
				t.Fatal(err)
			}
		}
	}
}

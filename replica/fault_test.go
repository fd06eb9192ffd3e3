package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/rpc"
)

// recorded is a master that has ended, and a datadir copied from it before it began.
type recorded struct {
	m    *master
	seed string
}

// record makes a chain with reorgs, a rewind, frozen blocks and a restart.
func record(t testing.TB) recorded {
	t.Helper()
	f := newForge(t)
	m := newMaster(t, f.file())
	seed := t.TempDir()
	m.copyTo(seed)
	m.start()
	a := f.extend(f.root, 20, 4)
	m.grow(a...)
	b := f.extend(a[12], 12, 3)
	m.payload(b...)
	m.head(b[11])
	m.head(a[19])
	m.forkchoice(b[11], a[8].Hash(), a[6].Hash())
	m.stop()
	m.start()
	m.grow(f.extend(b[11], 5, 2)...)
	m.setHead(18)
	c := f.extend(b[3], 10, 3)
	m.payload(c...)
	m.head(c[9])
	m.grow(f.extend(c[9], 10, 2)...)
	m.stop()
	return recorded{m, seed}
}

// fresh is another copy of the seed.
func (r recorded) fresh(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(r.seed)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// part is the recorded log up to n entries.
func (r recorded) part(n int) *memLog {
	l := newMemLog()
	l.entries = append(l.entries, r.m.log.entries[:n]...)
	return l
}

func (l *memLog) feed(e ...changelog.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range e {
		e.Offset = int64(len(l.entries))
		l.entries = append(l.entries, e)
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

// batchAt is the index of the first batch at or behind n.
func (r recorded) batchAt(n int) int {
	for r.m.log.entries[n].Frame.Kind != changelog.KindBatch {
		n++
	}
	return n
}

func TestFaults(t *testing.T) {
	rec := record(t)
	t.Run("a lost frame stops the replica at the hole", func(t *testing.T) { lostFrame(t, rec) })
	t.Run("a refused write keeps the position", func(t *testing.T) { refusedWrite(t, rec) })
	t.Run("a refused write while catching up keeps the position", func(t *testing.T) { refusedBulkWrite(t, rec) })
	t.Run("a database that goes on refusing is opened again", func(t *testing.T) { stubbornWrite(t, rec) })
	t.Run("a damaged frame stops the replica", func(t *testing.T) { damagedFrame(t, rec) })
	t.Run("duplicates change nothing", func(t *testing.T) { duplicates(t, rec) })
	t.Run("wrong datadirs are refused", func(t *testing.T) { wrongDatadirs(t, rec) })
	t.Run("copies made with cp are adopted", func(t *testing.T) { adoptedCopies(t, rec) })
	t.Run("another chain's heartbeat stops the replica", func(t *testing.T) { otherGenesis(t, rec) })
	t.Run("a port in use is found at the start", func(t *testing.T) { portInUse(t, rec) })
	t.Run("ports open only at the end", func(t *testing.T) { silence(t, rec) })
	t.Run("a backlog that was not fetched yet counts", func(t *testing.T) { unseenBacklog(t, rec) })
	t.Run("stale data is served with a warning where asked for", func(t *testing.T) { servedStale(t, rec) })
	t.Run("killed at any moment", func(t *testing.T) { killed(t, rec) })
	t.Run("geth's crash while it moves the head is repaired", func(t *testing.T) { halfMoved(t, rec) })
}

// live lets a replica through to geth before the tail of the log comes.
func (r recorded) live(t *testing.T, change func(*Options)) (*running, *memLog, int, string) {
	t.Helper()
	n := r.batchAt(len(r.m.log.entries) * 2 / 3)
	log, dir := r.part(n), r.fresh(t)
	run := startReplica(t, log, dir, change)
	eventually(t, time.Minute, "the replica to be live", func() error {
		if s := run.Status(context.Background()); s.Extra.(Extra).Phase != "live" || s.Offset != int64(n-1) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return run, log, n, dir
}

// unseenBacklog: after an outage the topic grows faster than it is fetched, and what is fetched tells an old end.
func unseenBacklog(t *testing.T, rec recorded) {
	run, log, at, _ := rec.live(t, nil)
	is := func(phase phase) {
		t.Helper()
		eventually(t, time.Minute, "the replica to notice", func() error {
			s := run.Status(context.Background())
			if s.Extra.(Extra).Phase != phase.String() || s.Ready || len(s.Reasons) == 0 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	log.mu.Lock()
	log.unseen = fallBehind + 100
	log.mu.Unlock()
	eventually(t, time.Minute, "the lag to be told", func() error {
		if s := run.Status(context.Background()); s.Lag.Frames == nil || *s.Lag.Frames < fallBehind {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	is(phaseLive)
	log.feed(rec.m.log.entries[at]) // too far behind to go on through geth, a head at a time
	is(phaseBulk)
	run.stop()
}

func lostFrame(t *testing.T, rec recorded) {
	for _, bulk := range []bool{false, true} {
		var run *running
		var log *memLog
		var at int
		if bulk {
			at = rec.batchAt(len(rec.m.log.entries) / 2)
			log = rec.part(at)
			log.feed(rec.m.log.entries[at+1:]...)
			run = startReplica(t, log, rec.fresh(t), func(o *Options) { o.LiveFrames = 1 })
		} else {
			run, log, at, _ = rec.live(t, nil)
			log.feed(rec.m.log.entries[at+1:]...)
		}
		run.wait()
		if !errors.Is(run.err, changelog.ErrHole) {
			t.Fatalf("ended with %v, want a hole", run.err)
		}
		s := run.Status(context.Background())
		if want := rec.m.log.entries[at].Frame.First - 1; s.Sequence != want || s.Ready || len(s.Reasons) == 0 {
			t.Errorf("stands at %d, want %d: %v", s.Sequence, want, s.Reasons)
		}
	}
}

func refusedWrite(t *testing.T, rec recorded) {
	var refuse atomic.Bool
	var refused atomic.Int32
	run, log, at, dir := rec.live(t, func(o *Options) {
		o.BeforeWrite = func(changelog.Position) error {
			if refuse.Load() {
				refused.Add(1)
				return errors.New("no space left on device")
			}
			return nil
		}
	})
	before := run.Status(context.Background()).Sequence
	refuse.Store(true)
	log.feed(rec.m.log.entries[at:]...)
	eventually(t, 10*time.Second, "the reason", func() error {
		s := run.Status(context.Background())
		if s.Ready || !strings.Contains(strings.Join(s.Reasons, " "), "no space left") {
			return fmt.Errorf("ready %v: %v", s.Ready, s.Reasons)
		}
		if s.Sequence != before {
			t.Fatalf("the position moved to %d from %d", s.Sequence, before)
		}
		return nil
	})
	refuse.Store(false)
	run.reaches(rec.m.last)
	if refused.Load() == 0 {
		t.Error("no write was refused")
	}
	run.stop()
	sameDatabases(t, rec.m.datadir, dir)
}

func refusedBulkWrite(t *testing.T, rec recorded) {
	var refused atomic.Int32
	dir := rec.fresh(t)
	run := startReplica(t, rec.m.log, dir, func(o *Options) {
		o.UntilSynced = true
		o.BeforeWrite = func(changelog.Position) error {
			if refused.Add(1) <= 2 {
				return errors.New("no space left on device")
			}
			return nil
		}
	})
	run.wait()
	if run.err != nil || refused.Load() < 3 {
		t.Fatalf("%v after %d refusals", run.err, refused.Load())
	}
	sameDatabases(t, rec.m.datadir, dir)
}

func stubbornWrite(t *testing.T, rec recorded) {
	var refused atomic.Int32
	run, log, at, dir := rec.live(t, func(o *Options) {
		o.BeforeWrite = func(at changelog.Position) error {
			if at.Sequence > rec.m.last/2 && refused.Add(1) <= 6 {
				return errors.New("journal is closed")
			}
			return nil
		}
	})
	log.feed(rec.m.log.entries[at:]...)
	run.reaches(rec.m.last)
	if refused.Load() < 6 {
		t.Error("the writes were not refused")
	}
	run.stop()
	sameDatabases(t, rec.m.datadir, dir)
}

func damagedFrame(t *testing.T, rec recorded) {
	for name, e := range map[string]changelog.Entry{
		"empty":  {Err: fmt.Errorf("%w: empty message", changelog.ErrBadFrame)},
		"future": {Err: fmt.Errorf("%w: version 9", changelog.ErrFutureVersion)},
	} {
		run, log, at, _ := rec.live(t, nil)
		log.feed(e)
		log.feed(rec.m.log.entries[at:]...)
		run.wait()
		if !errors.Is(run.err, e.Err) && !errors.Is(run.err, changelog.ErrCorrupt) {
			t.Errorf("%s: ended with %v", name, run.err)
		}
		if s := run.Status(context.Background()); s.Ready || s.Offset >= int64(at) {
			t.Errorf("%s: ready %v at offset %d", name, s.Ready, s.Offset)
		}
	}
}

func duplicates(t *testing.T, rec recorded) {
	run, log, at, dir := rec.live(t, nil)
	for i, e := range rec.m.log.entries[at:] {
		log.feed(e, e)
		if i%5 == 0 {
			log.feed(rec.m.log.entries[rec.batchAt(at/2)])
		}
	}
	run.reaches(rec.m.last)
	run.stop()
	sameDatabases(t, rec.m.datadir, dir)
}

func wrongDatadirs(t *testing.T, rec recorded) {
	ended := func(dir, cluster string) error {
		r, err := New(Options{Cluster: cluster, Log: rec.m.log, Datadir: dir, Logger: testLogger(t)})
		if err != nil {
			return err
		}
		return r.Run(context.Background())
	}
	if err := ended(t.TempDir(), testCluster); !errors.Is(err, ErrUsage) {
		t.Errorf("empty datadir: %v", err)
	}
	if err := ended(rec.fresh(t), "other"); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("another cluster's: %v", err)
	}
	if err := ended(rec.m.datadir, testCluster); !errors.Is(err, ErrUsage) {
		t.Errorf("the master's own: %v", err)
	}
	if err := ended(rec.later(t, unmark), testCluster); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "drover.json") {
		t.Errorf("a later copy with neither position nor marker: %v", err)
	}
	newer := rec.fresh(t)
	b, err := OpenBulk(filepath.Join(newer, "geth", "chaindata"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.db.Put(keyDBVersion, []byte{byte(maxDatabaseVersion + 1)}, nil), b.Close()); err != nil {
		t.Fatal(err)
	}
	if err := ended(newer, testCluster); !errors.Is(err, ErrUsage) {
		t.Errorf("a newer database version: %v", err)
	}
	pebble := t.TempDir()
	runGeth(t, "init", "--datadir", pebble, "--db.engine", "pebble", "--state.scheme", "hash", newForge(t).file())
	if err := ended(pebble, testCluster); !errors.Is(err, chaindata.ErrUnsupportedSource) {
		t.Errorf("Pebble: %v", err)
	}
}

func otherGenesis(t *testing.T, rec recorded) {
	run, log, at, _ := rec.live(t, nil)
	last := rec.m.log.entries[rec.batchAt(at)].Frame.First - 1
	log.append(changelog.HeartbeatFrame(1, last, changelog.Heartbeat{Cluster: testCluster, Genesis: hashOf(1).Hex()}, time.Now()))
	run.wait()
	if !errors.Is(run.err, ErrUsage) || !strings.Contains(run.err.Error(), "genesis") {
		t.Errorf("ended with %v", run.err)
	}
}

func portInUse(t *testing.T, rec recorded) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(Options{Cluster: testCluster, Log: rec.m.log, Datadir: t.TempDir(), HTTP: true, HTTPPort: l.Addr().(*net.TCPAddr).Port})
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("%v", err)
	}
}

func silence(t *testing.T, rec recorded) {
	run, log, at, _ := rec.live(t, func(o *Options) { o.MaxHeartbeatAge = time.Second })
	if run.HTTPAddr() != "" {
		t.Fatal("the port is open before a heartbeat came")
	}
	last := rec.m.log.entries[rec.batchAt(at)].Frame.First - 1
	beat := func(hb changelog.Heartbeat) {
		hb.Cluster = testCluster
		log.append(changelog.HeartbeatFrame(1, last, hb, time.Now()))
	}
	beat(changelog.Heartbeat{SourceAlive: true, Syncing: true})
	eventually(t, 10*time.Second, "the reason", func() error {
		if s := run.Status(context.Background()); len(s.Reasons) != 1 || s.Reasons[0] != "master syncing" {
			return fmt.Errorf("%v", s.Reasons)
		}
		return nil
	})
	if run.HTTPAddr() != "" {
		t.Fatal("the port is open while the master is syncing")
	}
	beat(changelog.Heartbeat{SourceAlive: true})
	run.ready()
	eventually(t, 10*time.Second, "the heartbeat to grow old", func() error {
		if s := run.Status(context.Background()); s.Ready || !strings.Contains(s.Reasons[0], "heartbeat age") {
			return fmt.Errorf("%v", s.Reasons)
		}
		return nil
	})
	if _, err := rpc.Dial("http://" + run.HTTPAddr()); err != nil || run.HTTPAddr() == "" {
		t.Errorf("the port closed when readiness ended: %v", err)
	}
	run.stop()
}

func halfMoved(t *testing.T, rec recorded) {
	// In the middle of the reorg from a to b, as geth's own reorg leaves the database when it dies.
	dir := rec.fresh(t)
	run := startReplica(t, rec.m.log, dir, func(o *Options) { o.UntilSynced = true })
	run.wait()
	b, err := OpenBulk(filepath.Join(dir, "geth", "chaindata"))
	if err != nil {
		t.Fatal(err)
	}
	head, _ := b.db.Get(keyLastBlock, nil)
	number, _ := b.db.Get(append([]byte("H"), head...), nil)
	key := append([]byte("h"), number...)
	parent, err := b.db.Get(canonicalKey(keyNumber(key)-1), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, marker := range [][]byte{keyLastBlock, keyLastFast, keyLastHeader} {
		if err := b.db.Put(marker, parent, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.db.Delete(canonicalKey(keyNumber(key)), nil), b.Close()); err != nil {
		t.Fatal(err)
	}
	run = startReplica(t, rec.m.log, dir, nil)
	eventually(t, time.Minute, "the replica to be live", func() error {
		if s := run.Status(context.Background()); s.Extra.(Extra).Phase != "live" {
			return fmt.Errorf("%v", s.Reasons)
		}
		return nil
	})
	run.stop()
	sameDatabases(t, rec.m.datadir, dir)
}

const childEnv = "DROVER_TEST_REPLICA_CHILD"

// TestMain runs a replica instead of the tests when the environment asks for one: killed's victim.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child follows the frames in a file; beyond what the database has they come slowly, so that geth applies them.
func child(datadir string) error {
	log := newMemLog()
	messages, err := os.ReadFile(os.Getenv(childEnv + "_LOG"))
	if err != nil {
		return err
	}
	var entries []changelog.Entry
	for len(messages) > 0 {
		size := int(messages[0]) | int(messages[1])<<8 | int(messages[2])<<16 | int(messages[3])<<24
		frame, err := changelog.Decode(messages[4 : 4+size])
		if err != nil {
			return err
		}
		entries = append(entries, changelog.Entry{Frame: frame, Size: size})
		messages = messages[4+size:]
	}
	db, err := openDatabase(&Options{Datadir: datadir, Cluster: testCluster})
	if err != nil {
		return err
	}
	at := db.at
	if err := db.db.Close(); err != nil {
		return err
	}
	have := 0
	for have < len(entries) && entries[have].Frame.Last() <= at.Sequence {
		have++
	}
	// The first of what is left in bulk, the rest live.
	have = min(len(entries), have+len(entries)/20)
	log.feed(entries[:have]...)
	go func() {
		for _, e := range entries[have:] {
			log.feed(e)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	r, err := New(Options{Cluster: testCluster, Log: log, Datadir: datadir, Cache: 64, LiveFrames: 4})
	if err != nil {
		return err
	}
	return r.Run(context.Background())
}

func killed(t *testing.T, rec recorded) {
	kills := 20
	if n, err := strconv.Atoi(os.Getenv("DROVER_TEST_KILLS")); err == nil {
		kills = n
	}
	var file []byte
	for _, e := range rec.m.log.entries {
		message := e.Frame.AppendTo(nil)
		size := len(message)
		file = append(file, byte(size), byte(size>>8), byte(size>>16), byte(size>>24))
		file = append(file, message...)
	}
	path := filepath.Join(t.TempDir(), "frames")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewSource(seed))
	dir, ended := rec.fresh(t), 0
	var last uint64
	for i := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_LOG="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out := new(lockedBuffer)
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+random.Intn(1200)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if out.String() != "" {
			t.Fatalf("kill %d: %s", i, out)
		}
		db, err := openDatabase(&Options{Datadir: dir, Cluster: testCluster})
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if db.at.Sequence < last {
			t.Fatalf("kill %d: the position went back from %d to %d", i, last, db.at.Sequence)
		}
		last = db.at.Sequence
		db.db.Close()
		if last == rec.m.last { // once more from the start
			run := startReplica(t, rec.m.log, dir, nil)
			run.reaches(last)
			run.stop()
			sameDatabases(t, rec.m.datadir, dir)
			dir, last, ended = rec.fresh(t), 0, ended+1
		}
	}
	run := startReplica(t, rec.m.log, dir, nil)
	run.reaches(rec.m.last)
	run.stop()
	sameDatabases(t, rec.m.datadir, dir)
	t.Logf("%d kills, %d times to the end", kills, ended+1)
}

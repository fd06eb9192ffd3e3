package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/chaindata/statecheck/statetest"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
	"github.com/drover-io/drover/snapshot"
)

func deadline(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// master is a database that grows, with its change log.
type master struct {
	t       testing.TB
	datadir string
	log     *changelog.Log
	db      *leveldb.DB

	mu   sync.Mutex
	ends []uint64 // the sequence after each block
}

func openLog(t testing.TB, brokers ...string) *changelog.Log {
	t.Helper()
	l, err := changelog.Open(deadline(t, time.Minute), changelog.Options{Brokers: brokers, Cluster: testCluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// embedded starts a broker that drops at once what retention lets it.
func embedded(t testing.TB) string {
	t.Helper()
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-tick.C:
				b.Cluster().ApplyRetention()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; b.Close() })
	return b.Addr()
}

func newMaster(t testing.TB, log *changelog.Log, datadir string, retention time.Duration) *master {
	t.Helper()
	if _, _, err := log.Ensure(deadline(t, time.Minute), changelog.TopicSpec{Retention: retention}); err != nil {
		t.Fatal(err)
	}
	m := &master{t: t, datadir: datadir, log: log}
	dir := filepath.Join(datadir, "geth", "chaindata")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.db, err = leveldb.OpenFile(dir, &opt.Options{WriteBuffer: 128 << 10, CompactionTableSize: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.db.Close() })
	if err := chaindata.WriteMarker(dir, chaindata.Marker{Cluster: testCluster, Timeline: 1, Role: chaindata.RoleSource}); err != nil {
		t.Fatal(err)
	}
	m.publish(changelog.StartFrame(1, changelog.TimelineStart{Cluster: testCluster, Reason: changelog.ReasonInitial}, time.Now()))
	m.write()
	return m
}

func (m *master) publish(frames ...changelog.Frame) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := m.log.NewPublisher(changelog.PublisherOptions{}).Publish(ctx, frames); err != nil {
		m.t.Errorf("publish: %v", err)
	}
}

// write adds a block.
func (m *master) write() {
	m.mu.Lock()
	defer m.mu.Unlock()
	ops, _ := statetest.Block(uint64(len(m.ends)))
	batch := new(leveldb.Batch)
	for _, op := range ops {
		if op.Value == nil {
			batch.Delete(op.Key)
		} else {
			batch.Put(op.Key, op.Value)
		}
	}
	if err := m.db.Write(batch, nil); err != nil {
		m.t.Error(err)
		return
	}
	first := uint64(1)
	if n := len(m.ends); n > 0 {
		first = m.ends[n-1] + 1
	}
	m.ends = append(m.ends, first+uint64(len(ops))-1)
	m.publish(changelog.SplitBatch(1, first, uint32(len(ops)), batch.Dump(), 0, time.Now())...)
}

// run writes blocks until stop is called.
func (m *master) run(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, every) {
			m.write()
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	m.t.Cleanup(stop)
	return stop
}

// same compares a restored datadir with what the master's database held at the snapshot's sequence.
func (m *master) same(datadir string, sequence uint64) {
	m.t.Helper()
	want := make(map[string]string)
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, end := range m.ends {
		if end > sequence {
			break
		}
		ops, _ := statetest.Block(uint64(n))
		for _, op := range ops {
			if delete(want, string(op.Key)); op.Value != nil {
				want[string(op.Key)] = string(op.Value)
			}
		}
	}
	db, err := leveldb.OpenFile(filepath.Join(datadir, "geth", "chaindata"), &opt.Options{ReadOnly: true, Strict: opt.StrictAll})
	if err != nil {
		m.t.Fatal(err)
	}
	defer db.Close()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for ; it.Next(); n++ {
		if v, ok := want[string(it.Key())]; !ok || v != string(it.Value()) {
			m.t.Fatalf("at sequence %d: key %x differs", sequence, it.Key())
		}
	}
	if n != len(want) || it.Error() != nil {
		m.t.Fatalf("at sequence %d: %d keys of %d, %v", sequence, n, len(want), it.Error())
	}
}

// bootable is why no replica could be started now: the newest usable snapshot, restored, would not join.
func bootable(ctx context.Context, store snapshot.Store, log *changelog.Log) error {
	s, err := snapshot.Find(ctx, store, testCluster, snapshot.Select{})
	if err == nil {
		_, err = log.Join(ctx, s.Position())
	}
	return err
}

// The test binary is also the scheduler that gets killed: with this variable set it runs one.
const childEnv = "DROVER_TEST_SCHEDULE"

type childConfig struct {
	Broker, Store, Datadir string
	Interval               time.Duration
	Name                   string
}

func TestMain(m *testing.M) {
	if config := os.Getenv(childEnv); config != "" {
		if err := child(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func child(config string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	log, err := changelog.Open(ctx, changelog.Options{Brokers: []string{c.Broker}, Cluster: testCluster})
	if err != nil {
		return err
	}
	defer log.Close()
	s, err := c.scheduler(log)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func (c *childConfig) options(log *changelog.Log) (o Options, err error) {
	store, err := snapshot.OpenDir(c.Store)
	if err != nil {
		return o, err
	}
	backend, err := NewStore(StoreOptions{Cluster: testCluster, Store: store, Topic: log, NoHardLinks: true, Node: c.Name, Keep: 2, OrphanAge: time.Second})
	return Options{
		Cluster: testCluster, Topic: log, Backend: backend, Source: Live(c.Datadir), Notes: store, Interval: c.Interval,
		CheckEvery: 100 * time.Millisecond, RetryMin: 50 * time.Millisecond, Node: c.Name,
	}, err
}

func (c *childConfig) scheduler(log *changelog.Log) (*Scheduler, error) {
	o, err := c.options(log)
	if err != nil {
		return nil, err
	}
	return New(o)
}

// start runs a scheduler as a process of its own.
func (c childConfig) start(t testing.TB) *exec.Cmd {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// nothingLeft asserts that no temporary file or staging directory is anywhere below.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if name := d.Name(); err == nil && (strings.HasPrefix(name, "run-") || strings.HasPrefix(name, "put-") || strings.Contains(name, ".partial-")) {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB, d time.Duration, what string, f func() error) {
	t.Helper()
	end := time.Now().Add(d)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		pause(t.Context(), 20*time.Millisecond)
	}
}

func writeFile(path string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x\n"), 0o644))
}

package master

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
	localgeth "github.com/drover-io/drover/tools/geth"
)

const testCluster = "test"

// testLimit is how long a test waits for anything before it fails.
const testLimit = time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// until polls a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testLimit); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for: %s", testLimit, what)
		}
	}
}

func startBroker(t testing.TB) string {
	t.Helper()
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.Addr()
}

func openLog(t testing.TB, address string) *changelog.Log {
	t.Helper()
	log, err := changelog.Open(testContext(t), changelog.Options{Brokers: []string{address}, Cluster: testCluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// shortDir is a temporary directory whose path leaves room for a unix socket's name.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func chaindataDir(datadir string) string { return filepath.Join(datadir, "geth", "chaindata") }

var storageFlags = []string{"--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "archive"}

// fake is the command line of the fake geth.
func fake(datadir string, more ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append(append([]string{self, "fake-geth", "--datadir=" + datadir}, storageFlags...), more...)
}

// child is a program of this test binary.
type child struct {
	*exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (c *child) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *child) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

func startChild(t testing.TB, args ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, self, args...)
}

func startProgram(t testing.TB, path string, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(path, args...), done: make(chan struct{})}
	c.Stdout, c.Stderr = c, c
	c.WaitDelay = 5 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-c.done
	})
	return c
}

func startMaster(t testing.TB, config masterConfig) *child {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return startChild(t, "run-master", string(text))
}

// wait returns the exit code, -1 for a killed process.
func (c *child) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-c.done:
		return c.ProcessState.ExitCode()
	case <-time.After(testLimit):
		t.Fatalf("process %d does not end; its output:\n%s", c.Process.Pid, c.output())
		return 0
	}
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) stop(t testing.TB) int {
	t.Helper()
	_ = c.Process.Signal(syscall.SIGTERM)
	return c.wait(t)
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields := procStat(child); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			pids = append(pids, child)
		}
	}
	return pids
}

// procStat returns the fields of /proc/PID/stat from the state on.
func procStat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.Fields(after)
}

// gone says that a process has ended (a zombie that nobody has waited for has).
func gone(pid int) bool {
	fields := procStat(pid)
	return len(fields) == 0 || fields[0] == "Z" || fields[0] == "X"
}

// replay reads the topic through a Sequencer into a map, from an empty database at base.
func replay(t testing.TB, log *changelog.Log, base uint64) (map[string]string, changelog.Position) {
	t.Helper()
	ctx := testContext(t)
	first, next, err := log.Bounds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{}
	sequencer := changelog.NewSequencer(changelog.Position{Cluster: testCluster, Timeline: 1, Sequence: base, Offset: -1})
	reader := log.NewReader(first)
	defer reader.Close()
	for offset := first; offset < next; {
		entry, err := reader.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		offset = entry.Offset + 1
		event, err := sequencer.Next(entry)
		if err != nil {
			t.Fatalf("a replica would stop here: %v", err)
		}
		if event.Kind != changelog.EventBatch {
			continue
		}
		batch, err := chaindata.ParseBatch(event.Record)
		if err != nil {
			t.Fatal(err)
		}
		for op := range batch.Ops() {
			if op.Delete {
				delete(content, string(op.Key))
			} else {
				content[string(op.Key)] = string(op.Value)
			}
		}
	}
	return content, sequencer.Position()
}

// assertEqual holds the topic against the database at rest: the same sequence, the same keys, the same values.
func assertEqual(t testing.TB, log *changelog.Log, datadir string) {
	t.Helper()
	content, position := replay(t, log, 0)
	state, err := chaindata.Inspect(chaindataDir(datadir))
	if err != nil {
		t.Fatal(err)
	}
	// One more is the void sequence of a restart that wrote nothing.
	if state.Sequence != position.Sequence && state.Sequence != position.Sequence+1 {
		t.Errorf("the database is at sequence %d, the topic at %d", state.Sequence, position.Sequence)
	}
	db, err := leveldb.OpenFile(chaindataDir(datadir), &opt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	keys, wrong := 0, 0
	iterator := db.NewIterator(nil, nil)
	defer iterator.Release()
	for iterator.Next() {
		keys++
		value, ok := content[string(iterator.Key())]
		if !ok || value != string(iterator.Value()) {
			if wrong++; wrong <= 5 {
				t.Errorf("key %x: on the topic %v, %d bytes; in the database %d bytes", iterator.Key(), ok, len(value), len(iterator.Value()))
			}
		}
	}
	if err := iterator.Error(); err != nil {
		t.Fatal(err)
	}
	if keys != len(content) || wrong > 0 || keys == 0 {
		t.Errorf("%d keys in the database, %d on the topic, %d differ", keys, len(content), wrong)
	}
	t.Logf("equal: %d keys at sequence %d", keys, position.Sequence)
}

// gate is a dialer that can be shut. (A proxy would not do: clients connect to the address that the broker tells them.)
type gate struct {
	mu      sync.Mutex
	shut    bool
	conns   []net.Conn
	refused int
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		g.refused++
		return nil, syscall.ECONNREFUSED
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err == nil {
		g.conns = append(g.conns, conn)
	}
	return conn, err
}

// set shuts the gate (existing connections are cut) or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, conn := range g.conns {
		conn.Close()
	}
	g.conns = nil
}

// assertFired fails the test if nobody ever stood before the shut gate.
func (g *gate) assertFired(t testing.TB) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused == 0 {
		t.Error("the fault did not fire: nobody tried to connect while the brokers were away")
	}
}

func gethBinary(t testing.TB) string {
	t.Helper()
	path, err := localgeth.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func runInProcess(t testing.TB, opts Options) (m *Master, stop func() error) {
	t.Helper()
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		cancel()
		once.Do(func() {
			select {
			case result = <-ended:
			case <-time.After(testLimit):
				result = errors.New("Run does not return")
			}
		})
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return m, stop
}

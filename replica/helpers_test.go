package replica

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/replica/dbcompare"
	localgeth "github.com/drover-io/drover/tools/geth"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
)

const testCluster = "test"

// memLog is a change log in memory.
type memLog struct {
	mu      sync.Mutex
	entries []changelog.Entry
	grown   chan struct{} // closed and replaced when entries grow
	base    int64         // first offset retained
	unseen  int64         // frames behind the entries that a reader does not get to see
}

func newMemLog() *memLog { return &memLog{grown: make(chan struct{})} }

func (l *memLog) append(frames ...changelog.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range frames {
		// Through the encoding, as over a broker.
		message := f.AppendTo(nil)
		decoded, err := changelog.Decode(message)
		l.entries = append(l.entries, changelog.Entry{Offset: int64(len(l.entries)), Frame: decoded, Err: err, Time: f.Time, Size: len(message)})
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *memLog) batch(b chaindata.Batch) {
	l.append(changelog.SplitBatch(1, b.First, b.Count, b.Data, 0, time.Now())...)
}

func (l *memLog) next() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.entries))
}

func (l *memLog) Bounds(context.Context) (int64, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base, int64(len(l.entries)) + l.unseen, nil
}

func (l *memLog) Tail(context.Context) (changelog.Tail, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tail := changelog.Tail{Empty: len(l.entries) == 0, Next: int64(len(l.entries)), Timeline: 1}
	for i := range l.entries {
		switch e := &l.entries[i]; {
		case e.Err != nil:
			tail.Damaged = e.Err
		case e.Frame.Kind == changelog.KindBatch && e.Frame.Part == e.Frame.Parts:
			tail.Sequence = max(tail.Sequence, e.Frame.Last())
		case e.Frame.Kind != changelog.KindBatch:
			tail.Sequence = max(tail.Sequence, e.Frame.First-1)
		}
	}
	return tail, nil
}

func (l *memLog) Join(_ context.Context, at changelog.Position) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.entries {
		if f := &l.entries[i].Frame; f.Timeline == at.Timeline &&
			(f.Kind == changelog.KindBatch && f.Last() > at.Sequence || f.Kind == changelog.KindTimelineStart && f.First > at.Sequence) {
			return int64(i), nil
		}
	}
	return int64(len(l.entries)), nil
}

func (l *memLog) Read(offset int64) EntryReader { return &memReader{l, offset} }

type memReader struct {
	log *memLog
	at  int64
}

func (r *memReader) Next(ctx context.Context) (changelog.Entry, error) {
	for {
		r.log.mu.Lock()
		n, grown := int64(len(r.log.entries)), r.log.grown
		if r.at < n {
			e := r.log.entries[r.at]
			e.HighWater = n
			r.at++
			r.log.mu.Unlock()
			return e, nil
		}
		r.log.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return changelog.Entry{}, ctx.Err()
		}
	}
}

func (r *memReader) Close() error { return nil }

// gethBinary is the stock geth that the tests capture.
func gethBinary(t testing.TB) string {
	t.Helper()
	path, err := localgeth.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func testLogger(t testing.TB) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("DROVER_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(&testWriter{t: t}, &slog.HandlerOptions{Level: level}))
}

// testWriter passes lines on to the test's log until the test ends; geth's goroutines may log behind it.
type testWriter struct {
	t    testing.TB
	once sync.Once
	mu   sync.Mutex
	over bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.once.Do(func() {
		w.t.Cleanup(func() {
			w.mu.Lock()
			w.over = true
			w.mu.Unlock()
		})
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.t.Log(string(bytes.TrimRight(p, "\n")))
	}
	return len(p), nil
}

// runGeth runs a geth command to its end.
func runGeth(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command(gethBinary(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("geth %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

var gethStorage = []string{"--db.engine", "leveldb", "--state.scheme", "hash"}

// master is a stock geth, captured into a memLog.
type master struct {
	t       testing.TB
	datadir string
	log     *memLog
	cmd     *exec.Cmd
	output  *lockedBuffer
	rpc     *rpc.Client // by IPC
	engine  *rpc.Client
	eth     *ethclient.Client

	follower *chaindata.Follower
	captured chan error
	last     uint64 // last sequence captured, under log.mu
	beats    context.CancelFunc
	beaten   chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (m *master) chaindata() string { return filepath.Join(m.datadir, "geth", "chaindata") }

// newMaster makes a datadir from a genesis file and marks it.
func newMaster(t testing.TB, genesis string) *master {
	t.Helper()
	m := &master{t: t, datadir: t.TempDir(), log: newMemLog()}
	runGeth(t, append([]string{"init", "--datadir", m.datadir}, append(gethStorage, genesis)...)...)
	err := chaindata.WriteMarker(m.chaindata(), chaindata.Marker{Cluster: testCluster, Timeline: 1, Role: chaindata.RoleSource})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// capture starts to follow the database from where it stands; call it while geth is down.
func (m *master) capture() {
	m.t.Helper()
	state, err := chaindata.Inspect(m.chaindata())
	if err != nil {
		m.t.Fatal(err)
	}
	if m.last == 0 {
		m.last = state.Sequence
		m.log.append(changelog.StartFrame(1, changelog.TimelineStart{Cluster: testCluster, Reason: changelog.ReasonInitial, Base: state.Sequence}, time.Now()))
	}
	m.follower, err = chaindata.NewFollower(chaindata.FollowOptions{Dir: m.chaindata(), From: m.last + 1, Logger: testLogger(m.t)})
	if err != nil {
		m.t.Fatal(err)
	}
	m.captured = make(chan error, 1)
	go func() {
		for {
			b, err := m.follower.Next(context.Background())
			if err != nil {
				if err == io.EOF {
					err = nil
				}
				m.captured <- err
				return
			}
			m.log.batch(b)
			m.log.mu.Lock()
			m.last = b.Last()
			m.log.mu.Unlock()
			m.follower.Published(b.Last())
		}
	}()
}

// finish waits until everything that a geth which has ended wrote is captured.
func (m *master) finish() {
	m.t.Helper()
	m.follower.SourceStopped()
	select {
	case err := <-m.captured:
		if err != nil {
			m.t.Fatalf("capture: %v", err)
		}
	case <-time.After(time.Minute):
		m.t.Fatal("capture does not end")
	}
	m.follower.Close()
}

// copyTo makes a replica's datadir from the live database.
func (m *master) copyTo(datadir string) {
	m.t.Helper()
	if _, err := chaindata.Copy(context.Background(), m.chaindata(), filepath.Join(datadir, "geth", "chaindata"), chaindata.CopyOptions{}); err != nil {
		m.t.Fatal(err)
	}
}

const jwtSecret = "0x0101010101010101010101010101010101010101010101010101010101010101"

// start runs geth with the Engine API and sends heartbeats.
func (m *master) start(extra ...string) {
	m.t.Helper()
	m.capture()
	secret := filepath.Join(m.datadir, "jwt.hex")
	if err := os.WriteFile(secret, []byte(jwtSecret), 0o600); err != nil {
		m.t.Fatal(err)
	}
	ipc := filepath.Join(m.datadir, "geth.ipc")
	os.Remove(ipc)
	args := append([]string{
		"--datadir", m.datadir, "--gcmode", "archive", "--syncmode", "full", "--nodiscover", "--maxpeers", "0", "--nat", "none",
		"--port", "0", "--authrpc.port", "0", "--authrpc.jwtsecret", secret, "--ipcpath", ipc, "--cache", "256", "--nodekeyhex",
		"45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8",
	}, gethStorage...)
	m.cmd = exec.Command(gethBinary(m.t), append(args, extra...)...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.output = new(lockedBuffer)
	m.cmd.Stdout, m.cmd.Stderr = m.output, m.output
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if m.cmd.ProcessState == nil {
			m.cmd.Process.Kill()
			m.cmd.Wait()
		}
	})
	eventually(m.t, 30*time.Second, "geth's IPC", func() (err error) {
		m.rpc, err = rpc.Dial(ipc)
		return err
	})
	m.eth = ethclient.NewClient(m.rpc)
	if !strings.Contains(strings.Join(extra, " "), "--dev") {
		m.dialEngine()
	}
	m.heartbeats()
}

func (m *master) dialEngine() {
	m.t.Helper()
	var at string
	eventually(m.t, 30*time.Second, "the Engine API's port", func() error {
		_, rest, ok := strings.Cut(m.output.String(), "url=ws://127.0.0.1:")
		if !ok {
			return fmt.Errorf("not in geth's log:\n%s", m.output.String())
		}
		at, _, _ = strings.Cut(rest, "\n")
		return nil
	})
	client, err := rpc.DialOptions(context.Background(), "http://127.0.0.1:"+strings.TrimSpace(at),
		rpc.WithHTTPAuth(node.NewJWTAuth([32]byte(common.FromHex(jwtSecret)))))
	if err != nil {
		m.t.Fatal(err)
	}
	m.engine = client
}

func (m *master) heartbeats() {
	ctx, cancel := context.WithCancel(context.Background())
	m.beats, m.beaten = cancel, make(chan struct{})
	go func() {
		defer close(m.beaten)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			m.heartbeat(ctx)
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
}

func (m *master) heartbeat(ctx context.Context) {
	hb := changelog.Heartbeat{Cluster: testCluster, SourceAlive: true, Interval: 100 * time.Millisecond}
	for _, label := range []struct {
		name string
		ref  **changelog.BlockRef
	}{{"latest", &hb.Head}, {"safe", &hb.Safe}, {"finalized", &hb.Finalized}} {
		var block *struct {
			Number, Timestamp string
			Hash              string
		}
		if err := m.rpc.CallContext(ctx, &block, "eth_getBlockByNumber", label.name, false); err != nil || block == nil {
			continue
		}
		*label.ref = &changelog.BlockRef{Number: common.HexToHash(block.Number).Big().Uint64(), Hash: block.Hash, Time: common.HexToHash(block.Timestamp).Big().Uint64()}
	}
	m.log.mu.Lock()
	last := m.last
	m.log.mu.Unlock()
	m.log.append(changelog.HeartbeatFrame(1, last, hb, time.Now()))
}

// stop ends geth and the capture.
func (m *master) stop() {
	m.t.Helper()
	m.beats()
	<-m.beaten
	m.rpc.Close()
	m.cmd.Process.Signal(syscall.SIGTERM)
	if err := m.cmd.Wait(); err != nil {
		m.t.Fatalf("geth: %v\n%s", err, m.output)
	}
	m.finish()
}

// running is a replica under test.
type running struct {
	*Replica
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func startReplica(t testing.TB, log ChangeLog, datadir string, change func(*Options)) *running {
	t.Helper()
	opts := Options{
		Cluster: testCluster, Log: log, Datadir: datadir, HTTP: true, WS: true, WSOrigins: []string{"*"},
		HTTPAPI: []string{"eth", "net", "web3", "debug", "txpool"}, WSAPI: []string{"eth", "net", "web3", "debug", "txpool"},
		Cache: 128, Handles: 256, Logger: testLogger(t),
	}
	if change != nil {
		change(&opts)
	}
	r, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{Replica: r, t: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		run.err = r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-run.done })
	return run
}

// stop ends the replica as SIGTERM does.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	r.wait()
	if r.err != nil {
		r.t.Fatalf("replica: %v", r.err)
	}
}

func (r *running) wait() {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		r.t.Fatal("the replica does not end")
	}
}

// reaches waits until the replica has applied everything up to the sequence.
func (r *running) reaches(sequence uint64) {
	r.t.Helper()
	eventually(r.t, time.Minute, "the replica's position", func() error {
		select {
		case <-r.done:
			r.t.Fatalf("replica ended: %v", r.err)
		default:
		}
		if s := r.Status(context.Background()); s.Sequence < sequence {
			return fmt.Errorf("at %d of %d: %v", s.Sequence, sequence, s.Reasons)
		}
		return nil
	})
}

func (r *running) ready() {
	r.t.Helper()
	eventually(r.t, time.Minute, "the replica to be ready", func() error {
		select {
		case <-r.done:
			r.t.Fatalf("replica ended: %v", r.err)
		default:
		}
		s := r.Status(context.Background())
		if !s.Ready || r.HTTPAddr() == "" {
			return fmt.Errorf("%v", s.Reasons)
		}
		return nil
	})
}

func (r *running) dialWS() *rpc.Client {
	r.t.Helper()
	client, err := rpc.Dial("ws://" + r.WSAddr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	return client
}

// eventually polls until check returns nil.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	var err error
	for until := time.Now().Add(limit); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("waited %s for %s: %v", limit, what, err)
}

// sameDatabases compares two datadirs that nothing has open.
func sameDatabases(t testing.TB, a, b string) {
	t.Helper()
	report, err := dbcompare.Compare(context.Background(), filepath.Join(a, "geth", "chaindata"), filepath.Join(b, "geth", "chaindata"),
		dbcompare.Options{Local: IsLocalKey})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Equal() {
		t.Fatalf("databases differ (master, replica):\n%s", report)
	}
	if report.Keys < 10 {
		t.Fatalf("compared %d keys: these are not the databases", report.Keys)
	}
	t.Logf("databases are equal: %s", report)
}

package master

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

func TestBrokersAwayForAWhileLoseNothingAndLeaveGethAlone(t *testing.T) {
	datadir, address, gate := t.TempDir(), startBroker(t), new(gate)
	opts := masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir, "--pause-us=100")}.options()
	opts.Kafka.Dial = gate.dial
	m, stop := runInProcess(t, opts)
	for range 3 {
		published := m.sequence()
		until(t, "publishing", func() bool { return m.sequence() > published+1000 })
		gate.set(true)
		before := currentSequence(t, datadir)
		until(t, "geth writes on without brokers", func() bool { return currentSequence(t, datadir) > before+5000 })
		if published := m.sequence(); published >= currentSequence(t, datadir) {
			t.Error("published through a shut gate")
		}
		gate.set(false)
	}
	gate.assertFired(t)
	if p := m.geth.get(); !p.alive() {
		t.Error("geth was stopped although nothing limits the journals")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	assertEqual(t, openLog(t, address), datadir)
}

func currentSequence(t testing.TB, datadir string) uint64 {
	t.Helper()
	state, err := chaindata.Inspect(chaindataDir(datadir))
	if err != nil {
		t.Fatal(err)
	}
	return state.Sequence
}

func TestJournalsBeyondTheLimitStopGethAndAreKept(t *testing.T) {
	datadir, address, gate := t.TempDir(), startBroker(t), new(gate)
	config := masterConfig{Broker: address, Datadir: datadir, SpoolLimit: 3 << 20,
		DrainTimeout: 300 * time.Millisecond, Geth: fake(datadir, "--pause-us=50")}
	opts := config.options()
	opts.Kafka.Dial = gate.dial
	m, stop := runInProcess(t, opts)
	log := openLog(t, address)
	until(t, "the timeline is open", func() bool { _, next, err := log.Bounds(testContext(t)); return err == nil && next > 0 })
	gate.set(true)
	until(t, "geth is stopped", func() bool { p := m.geth.get(); return p != nil && !p.alive() })
	assertErrorIs(t, stop(), chaindata.ErrSpoolFull, "nothing is lost")

	gate.assertFired(t)
	config.Geth = fake(datadir, "--batches=10")
	again := startMaster(t, config)
	if code := again.wait(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, again.output())
	}
	assertEqual(t, log, datadir)
}

func TestStopWithoutBrokersSaysWhatRemainsAndTheNextStartPublishesIt(t *testing.T) {
	datadir, address, gate := t.TempDir(), startBroker(t), new(gate)
	config := masterConfig{Broker: address, Datadir: datadir, DrainTimeout: 200 * time.Millisecond,
		Geth: fake(datadir, "--pause-us=200")}
	opts := config.options()
	opts.Kafka.Dial = gate.dial
	m, stop := runInProcess(t, opts)
	log := openLog(t, address)
	until(t, "capturing", func() bool { return m.sequence() > 1000 })
	gate.set(true)
	before := currentSequence(t, datadir)
	until(t, "geth writes on", func() bool { return currentSequence(t, datadir) > before+1000 })
	assertErrorIs(t, stop(), ErrUnpublished, "published at the next start")
	gate.assertFired(t)
	config.Geth = fake(datadir, "--batches=10")
	if again := startMaster(t, config); again.wait(t) != 0 {
		t.Fatalf("the next start: %s", again.output())
	}
	assertEqual(t, log, datadir)
}

// Fault 5, the part of it that the embedded broker can play.
func TestKilledBrokerThatComesBackGetsEverything(t *testing.T) {
	datadir, data := t.TempDir(), t.TempDir()
	address := freeAddress(t)
	b := startChild(t, "run-broker", address, data)
	until(t, "the broker listens", func() bool { return listens(address) })
	m := startMaster(t, masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir, "--pause-us=200")})
	gethOf(t, m, datadir)
	for range 3 {
		untilPublished(t, m, openLog(t, address))
		if err := b.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if b.wait(t) != -1 {
			t.Fatal("the kill did not fire")
		}
		b = startChild(t, "run-broker", address, data)
		until(t, "the broker listens again", func() bool {
			if b.ended() {
				t.Fatalf("the broker ended: %s", b.output())
			}
			return listens(address)
		})
	}
	log := openLog(t, address)
	untilPublished(t, m, log)
	if code := m.stop(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, m.output())
	}
	assertEqual(t, log, datadir)
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Fault 9, the master's side.
func TestNewerTimelineStopsGeth(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	config := masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir, "--pause-us=200")}
	m := startMaster(t, config)
	geth := gethOf(t, m, datadir)
	log := openLog(t, address)
	untilPublished(t, m, log)
	start := changelog.StartFrame(2, changelog.TimelineStart{
		Cluster: testCluster, Reason: changelog.ReasonRebase, PreviousTimeline: 1, Base: 1 << 40,
	}, time.Now())
	if _, err := log.NewPublisher(changelog.PublisherOptions{}).Publish(testContext(t), []changelog.Frame{start}); err != nil {
		t.Fatal(err)
	}
	if code := m.wait(t); code != 4 {
		t.Errorf("exit code %d, want 4: %s", code, m.output())
	}
	if !gone(geth) {
		t.Error("geth runs on behind the fence")
	}
	if again := startMaster(t, config); again.wait(t) != 4 {
		t.Errorf("the next start of the old master: %s", again.output())
	}
}

// Fault 20.
func TestMissingBrokerIsOneLineAndStartsNoGeth(t *testing.T) {
	datadir, address := t.TempDir(), freeAddress(t)
	m, err := New(masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir)}.options())
	if err != nil {
		t.Fatal(err)
	}
	assertErrorIs(t, m.Run(testContext(t)), changelog.ErrBrokersUnreachable, address)
	if m.geth.get() != nil {
		t.Error("geth was started")
	}
	if status := m.Status(testContext(t)); status.Ready || len(status.Reasons) == 0 {
		t.Errorf("status %+v", status)
	}
}

func TestChainThatIsNotTheTopicsStopsGeth(t *testing.T) {
	datadir, address := shortDir(t), startBroker(t)
	log := openLog(t, address)
	if _, _, err := log.Ensure(testContext(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	start := changelog.StartFrame(1, changelog.TimelineStart{
		Cluster: testCluster, Reason: changelog.ReasonInitial, Genesis: "0x" + strings.Repeat("11", 32),
	}, time.Now())
	if _, err := log.NewPublisher(changelog.PublisherOptions{}).Publish(testContext(t), []changelog.Frame{start}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(chaindataDir(datadir), 0o700); err != nil {
		t.Fatal(err)
	}
	marker := chaindata.Marker{Cluster: testCluster, Timeline: 1, Role: chaindata.RoleSource}
	if err := chaindata.WriteMarker(chaindataDir(datadir), marker); err != nil {
		t.Fatal(err)
	}
	opts := masterConfig{Broker: address, Datadir: datadir, Geth: realGeth(t, datadir)}.options()
	opts.Stdout, opts.Stderr = io.Discard, io.Discard
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	assertErrorIs(t, m.Run(testContext(t)), changelog.ErrWrongCluster, "0x1111")
	if p := m.geth.get(); p == nil || p.alive() {
		t.Error("geth was not started, or runs on")
	}
}

// slowConn passes on one write in a while, as a broker that is loaded does.
type slowConn struct {
	net.Conn
	pause time.Duration
}

func (c slowConn) Write(p []byte) (int, error) {
	if len(p) > 32<<10 {
		time.Sleep(c.pause)
	}
	return c.Conn.Write(p)
}

// What geth left when it ended by itself is published for as long as the brokers take something, however long it takes.
func TestBacklogOfAGethThatEndedIsPublishedHoweverLongItTakes(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	opts := masterConfig{Broker: address, Datadir: datadir, DrainTimeout: 2 * time.Second,
		Geth: fake(datadir, "--pause-us=0", "--batches=12000", "--buffer=8388608")}.options()
	opts.Kafka.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			conn = slowConn{conn, 10 * time.Millisecond}
		}
		return conn, err
	}
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	assertEqual(t, openLog(t, address), datadir)
}

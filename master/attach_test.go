package master

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

func startFake(t testing.TB, datadir string, more ...string) *child {
	t.Helper()
	argv := fake(datadir, more...)
	return startProgram(t, argv[0], argv[1:]...)
}

func attachConfig(address, datadir string) Options {
	o := masterConfig{Broker: address, Datadir: datadir, Attach: true, HeartbeatInterval: 100 * time.Millisecond}.options()
	o.IPC = "/nonexistent/geth.ipc"
	return o
}

func TestAttachedFollowsGethAcrossItsRestartsAndKills(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	m, stop := runInProcess(t, attachConfig(address, datadir))
	until(t, "capturing", func() bool { return m.Status(testContext(t)).Timeline == 1 })
	for i := range 6 {
		geth := startFake(t, datadir, "--pause-us=200")
		before := m.sequence()
		until(t, "its writes are published", func() bool { return m.sequence() > before+2000 })
		if i%2 == 0 {
			geth.stop(t)
			continue
		}
		_ = geth.Process.Signal(syscall.SIGKILL)
		geth.wait(t)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	assertEqual(t, openLog(t, address), datadir)
}

func TestAttachedStartsInTheMiddleAndGoesOnAfterItsOwnRestart(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	geth := startFake(t, datadir, "--pause-us=300", "--buffer=1048576")
	until(t, "geth has written", func() bool {
		state, err := chaindata.Inspect(chaindataDir(datadir))
		return err == nil && state.Sequence > 3000
	})
	log := openLog(t, address)
	for range 2 {
		m, stop := runInProcess(t, attachConfig(address, datadir))
		until(t, "capturing", func() bool { return m.sequence() > 0 })
		before := m.sequence()
		until(t, "following", func() bool { return m.sequence() > before+2000 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	m, stop := runInProcess(t, attachConfig(address, datadir))
	until(t, "capturing", func() bool { return m.Status(testContext(t)).Sequence > 0 })
	geth.stop(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	base := timelineBase(t, log)
	if base < 3000 {
		t.Errorf("the timeline starts at %d, geth was beyond 3000", base)
	}
	content, position := replay(t, log, base)
	if current := currentSequence(t, datadir); position.Sequence != current {
		t.Errorf("the topic ends at %d, the database at %d", position.Sequence, current)
	}
	assertHolds(t, datadir, content)
}

func timelineBase(t testing.TB, log *changelog.Log) uint64 {
	t.Helper()
	ctx := testContext(t)
	first, _, err := log.Bounds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reader := log.NewReader(first)
	defer reader.Close()
	entry, err := reader.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start, err := entry.Frame.Start()
	if err != nil {
		t.Fatalf("the topic does not begin with a timeline start: %v", err)
	}
	return start.Base
}

// assertHolds checks each key that the topic left with a value; keys from before the base are not on it.
func assertHolds(t testing.TB, datadir string, content map[string]string) {
	t.Helper()
	db, err := leveldb.OpenFile(chaindataDir(datadir), &opt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if len(content) == 0 {
		t.Error("nothing on the topic")
	}
	for key, want := range content {
		if got, err := db.Get([]byte(key), nil); err != nil || string(got) != want {
			t.Fatalf("key %q: %v", key, err)
		}
	}
}

func TestAttachedStopsAtAHoleAndLeavesGethAlone(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	m, stop := runInProcess(t, attachConfig(address, datadir))
	until(t, "capturing", func() bool { return m.Status(testContext(t)).Timeline == 1 })
	geth := startFake(t, datadir, "--large-at=200", "--pause-us=200")
	until(t, "the capture ends", func() bool { return m.Status(testContext(t)).Timeline == 1 && m.ended() })
	if err := stop(); !errors.Is(err, chaindata.ErrHole) {
		t.Errorf("got %v, want a hole", err)
	}
	if geth.ended() {
		t.Error("somebody else's geth was ended")
	}
}

// ended says that no session is open any more.
func (m *Master) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session == nil
}

package master

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

func TestGethThatEndsByItselfIsPublishedWholeAndItsCodePassedOn(t *testing.T) {
	for _, code := range []int{0, 3} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			datadir, address := t.TempDir(), startBroker(t)
			m := startMaster(t, masterConfig{Broker: address, Datadir: datadir,
				Geth: fake(datadir, "--batches=300", "--pause-us=0", fmt.Sprintf("--exit=%d", code))})
			if got := m.wait(t); got != code {
				t.Errorf("exit code %d, want %d: %s", got, code, m.output())
			}
			assertEqual(t, openLog(t, address), datadir)
		})
	}
}

func TestStopEndsGethAndPublishesItsLastWrites(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	config := masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir, "--pause-us=100")}
	log := openLog(t, address)
	for range 3 {
		m := startMaster(t, config)
		geth := gethOf(t, m, datadir)
		untilPublished(t, m, log)
		if code := m.stop(t); code != 0 {
			t.Errorf("exit code %d after SIGTERM: %s", code, m.output())
		}
		if !gone(geth) {
			t.Errorf("geth (process %d) outlived a clean stop", geth)
		}
		assertEqual(t, log, datadir)
	}
}

// gethOf waits until the master's geth has the database open.
func gethOf(t testing.TB, m *child, datadir string) int {
	t.Helper()
	pid := 0
	until(t, "geth holds the database", func() bool {
		for _, candidate := range childrenOf(m.Process.Pid) {
			if pids, _ := holders(filepath.Join(chaindataDir(datadir), "LOCK")); len(pids) == 1 && pids[0] == candidate {
				pid = candidate
			}
		}
		if m.ended() {
			t.Fatalf("the master ended: %s", m.output())
		}
		return pid != 0
	})
	return pid
}

// untilPublished waits until the topic's end has moved by some frames.
func untilPublished(t testing.TB, m *child, log *changelog.Log) {
	t.Helper()
	start := int64(-1)
	until(t, "frames on the topic", func() bool {
		if m.ended() {
			t.Fatalf("the master ended: %s", m.output())
		}
		_, next, err := log.Bounds(testContext(t))
		if start < 0 && err == nil {
			start = next
		}
		return err == nil && next > start+20
	})
}

// Fault 3.
func TestKillsAtAnyMomentLoseAndDoubleNothing(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	killLoop(t, kills(25), address, datadir, func() []string { return fake(datadir, "--pause-us=200") }, 400*time.Millisecond)
}

// Fault 3, with the real thing.
func TestKillsOfRealGethLoseAndDoubleNothing(t *testing.T) {
	geth, datadir, address := gethBinary(t), shortDir(t), startBroker(t)
	killLoop(t, kills(6), address, datadir, func() []string {
		return append([]string{geth, "--datadir", datadir, "--dev", "--dev.period", "1", "--port", "0", "--nodiscover",
			"--cache", "64", "--authrpc.port", "0"}, storageFlags...)
	}, 4*time.Second)
}

// kills is how many rounds a kill loop has: standard, or what `make soak` asks for.
func kills(standard int) int {
	if n, err := strconv.Atoi(os.Getenv("DROVER_E2E_KILLS")); err == nil {
		return n
	}
	if testing.Short() {
		return min(standard, 5)
	}
	return standard
}

// killLoop starts a master, kills it, its geth or both after a random time up to span, and starts again on the same
// disk. At the end the topic must hold the database.
func killLoop(t *testing.T, rounds int, address, datadir string, geth func() []string, span time.Duration) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	log := openLog(t, address)
	fired := map[string]int{}
	for round := range rounds {
		m := startMaster(t, masterConfig{Broker: address, Datadir: datadir, Geth: geth()})
		if round%2 == 0 {
			gethOf(t, m, datadir) // else: also while the journals are drained
		}
		time.Sleep(time.Duration(random.Int64N(int64(span))))
		if m.ended() {
			t.Fatalf("round %d: the master ended by itself: %s", round, m.output())
		}
		pids := childrenOf(m.Process.Pid)
		what := []string{"master", "geth", "both"}[random.IntN(3)]
		if what != "master" {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if what != "geth" || len(pids) == 0 {
			_ = m.Process.Kill()
		}
		code := m.wait(t)
		if what == "geth" && len(pids) > 0 && code != 128+9 {
			t.Fatalf("round %d: exit code %d after geth was killed: %s", round, code, m.output())
		}
		if what == "master" && code != -1 {
			t.Fatalf("round %d: the kill did not fire, exit code %d", round, code)
		}
		for _, pid := range pids {
			until(t, fmt.Sprintf("geth (process %d) is gone after the kill of %s", pid, what), func() bool { return gone(pid) })
			fired[what]++
		}
	}
	t.Logf("kills while geth ran: %v", fired)
	if rounds >= 20 && (fired["master"] == 0 || fired["geth"] == 0 || fired["both"] == 0) {
		t.Errorf("not every kind of kill fired: %v", fired)
	}
	m := startMaster(t, masterConfig{Broker: address, Datadir: datadir, Geth: geth()})
	gethOf(t, m, datadir)
	if code := m.stop(t); code != 0 {
		t.Fatalf("the last, clean run: exit code %d: %s", code, m.output())
	}
	assertEqual(t, log, datadir)
}

// Fault 17.
func TestBatchPastTheJournalEndsWithAHole(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	config := masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir, "--large-at=50", "--pause-us=100")}
	m := startMaster(t, config)
	geth := gethOf(t, m, datadir)
	if code := m.wait(t); code != 6 {
		t.Fatalf("exit code %d, want 6: %s", code, m.output())
	}
	if !gone(geth) {
		t.Error("geth runs on behind the hole")
	}
	if _, position := replay(t, openLog(t, address), 0); position.Sequence == 0 {
		t.Error("what came before the hole is not on the topic")
	}
	config.Geth = fake(datadir, "--pause-us=100")
	if again := startMaster(t, config); again.wait(t) != 6 {
		t.Errorf("the next start does not see the hole: %s", again.output())
	}
}

func TestLiveGethFromElsewhereIsNamed(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	argv := fake(datadir, "--pause-us=1000")
	other := startProgram(t, argv[0], argv[1:]...)
	until(t, "the other geth holds the database", func() bool {
		pids, _ := holders(filepath.Join(chaindataDir(datadir), "LOCK"))
		return len(pids) == 1
	})
	opts := masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir)}.options()
	opts.LockTimeout = 200 * time.Millisecond
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(testContext(t))
	assertErrorIs(t, err, chaindata.ErrLocked, fmt.Sprintf("process %d", other.Process.Pid))
}

func TestWrapperThatDoesNotExecIsRefusedAndItsGethEnded(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	wrapper := filepath.Join(t.TempDir(), "wrapper.sh")
	if err := os.WriteFile(wrapper, []byte("#!/bin/sh\n\"$@\"\nexit $?\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{wrapper}, fake(datadir, "--pause-us=1000")...)
	m, err := New(masterConfig{Broker: address, Datadir: datadir, Geth: argv}.options())
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(testContext(t))
	assertErrorIs(t, err, ErrWrapped, "exec geth")
	if pids, _ := holders(filepath.Join(chaindataDir(datadir), "LOCK")); len(pids) != 0 {
		t.Errorf("processes %v hold the database after the end", pids)
	}
	assertEqual(t, openLog(t, address), datadir)
}

func assertErrorIs(t testing.TB, err, target error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v", target)
	}
	if !errors.Is(err, target) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line of %q with %q", err, target, text)
	}
}

func TestRestartsThatWriteNothingAreNoHole(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	log := openLog(t, address)
	for _, batches := range []int{20, 0, 0, 20, 0, 20} {
		m := startMaster(t, masterConfig{Broker: address, Datadir: datadir, HeartbeatInterval: 20 * time.Millisecond,
			Geth: fake(datadir, fmt.Sprintf("--batches=%d", batches), "--idle")})
		gethOf(t, m, datadir)
		untilPublished(t, m, log) // heartbeats, if nothing else
		_ = m.Process.Kill()
		m.wait(t)
	}
	m := startMaster(t, masterConfig{Broker: address, Datadir: datadir, Geth: fake(datadir, "--batches=20")})
	if code := m.wait(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, m.output())
	}
	assertEqual(t, openLog(t, address), datadir)
}

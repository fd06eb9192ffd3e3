package master

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

func TestExitCodesAreAShells(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -9 $$": 137, "kill -TERM $$": 143} {
		p, err := startGeth([]string{"/bin/sh", "-c", script}, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		<-p.done
		if p.code != want {
			t.Errorf("%s: got %d, want %d", script, p.code, want)
		}
	}
	if _, err := startGeth([]string{"/nonexistent/geth"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "/nonexistent/geth") {
		t.Errorf("absent program: %v", err)
	}
}

func TestStopKillsWhatDoesNotEndAndItsDescendants(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ready")
	p, err := startGeth([]string{"/bin/sh", "-c", "trap '' TERM; sleep 1000 & echo $! > " + marker + ".tmp; mv " + marker + ".tmp " + marker + "; wait; sleep 1000"},
		io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var descendant int
	until(t, "the script is ready", func() bool {
		text, err := os.ReadFile(marker)
		_, scanErr := fmt.Sscan(string(text), &descendant)
		return err == nil && scanErr == nil
	})
	if p.stop(50 * time.Millisecond) {
		t.Error("a process that ignores SIGTERM counts as ended by itself")
	}
	if p.alive() || p.code != 137 {
		t.Errorf("alive %v, code %d", p.alive(), p.code)
	}
	until(t, "its descendant is gone", func() bool { return gone(descendant) })
	if !p.stop(time.Second) {
		t.Error("a second stop is not a clean one")
	}
}

func realGeth(t testing.TB, datadir string, more ...string) []string {
	argv := append([]string{gethBinary(t), "--datadir", datadir, "--dev", "--dev.period", "1", "--port", "0", "--nodiscover",
		"--cache", "64", "--authrpc.port", "0"}, storageFlags...)
	return append(argv, more...)
}

func TestRealGethIsCapturedWithItsHeartbeats(t *testing.T) {
	datadir, address := shortDir(t), startBroker(t)
	log := openLog(t, address)
	for run := range 2 {
		opts := masterConfig{Broker: address, Datadir: datadir, Geth: realGeth(t, datadir), HeartbeatInterval: 200 * time.Millisecond}.options()
		opts.Stdout, opts.Stderr = io.Discard, io.Discard
		m, stop := runInProcess(t, opts)
		until(t, "some blocks", func() bool {
			s := m.Status(testContext(t))
			return s.Ready && s.Head != nil && s.Head.Number >= uint64(3+2*run) && s.Safe != nil
		})
		if s := m.Status(testContext(t)); s.Timeline != 1 || s.Sequence == 0 || s.Offset <= 0 || *s.Lag.Blocks > 1 {
			t.Errorf("status %+v", s)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		assertEqual(t, log, datadir)
	}
	last := heartbeats(t, log)
	alive := last[0]
	for _, h := range last {
		if h.SourceAlive {
			alive = h
		}
	}
	if alive.Head == nil || alive.Head.Time == 0 || alive.ChainID != 1337 || len(alive.Genesis) != 66 || alive.DatabaseVersion == 0 ||
		!strings.HasPrefix(alive.GethVersion, "Geth/v1.") || !alive.SourceAlive || alive.Safe == nil {
		t.Errorf("heartbeat %+v", alive)
	}
	if end := last[len(last)-1]; end.SourceAlive {
		t.Error("the last heartbeat does not say that geth has ended")
	}
}

func heartbeats(t testing.TB, log *changelog.Log) (all []*changelog.Heartbeat) {
	t.Helper()
	ctx := testContext(t)
	first, next, err := log.Bounds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = log.ReadRange(ctx, first, next, func(e changelog.Entry) error {
		if e.Frame.Kind == changelog.KindHeartbeat {
			h, err := e.Frame.Heartbeat()
			all = append(all, h)
			return err
		}
		return nil
	})
	if err != nil || len(all) < 2 {
		t.Fatalf("%d heartbeats, %v", len(all), err)
	}
	return all
}

// The command line says what is asked for; the wrapper makes something else of it.
func TestSourceThatCannotBeCapturedEndsTheMaster(t *testing.T) {
	for _, test := range []struct{ name, from, to string }{
		{"not archive", "archive", "full"}, {"pebble", "leveldb", "pebble"}, {"path scheme", "hash", "path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			datadir, address := shortDir(t), startBroker(t)
			wrapper := filepath.Join(datadir, "wrapper.sh")
			script := fmt.Sprintf("#!/bin/bash\nargs=(\"$@\")\nexec \"${args[@]/#%s/%s}\"\n", test.from, test.to)
			if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			opts := masterConfig{Broker: address, Datadir: datadir, Geth: append([]string{wrapper}, realGeth(t, datadir)...)}.options()
			opts.Stdout, opts.Stderr = io.Discard, io.Discard
			m, err := New(opts)
			if err != nil {
				t.Fatal(err)
			}
			assertErrorIs(t, m.Run(testContext(t)), chaindata.ErrUnsupportedSource, "")
			if p := m.geth.get(); p == nil || p.alive() {
				t.Error("geth was not started, or runs on")
			}
			if test.name != "pebble" {
				return // geth was stopped so early that a look at the disk may not show it yet
			}
			m, err = New(opts)
			if err != nil {
				t.Fatal(err)
			}
			assertErrorIs(t, m.Run(testContext(t)), chaindata.ErrUnsupportedSource, "")
			if m.geth.get() != nil {
				t.Error("geth was started again on it")
			}
		})
	}
}

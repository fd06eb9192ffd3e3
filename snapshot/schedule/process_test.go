package schedule

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

	"github.com/drover-io/drover/snapshot"
)

// rounds is what DROVER_TEST_ROUNDS says (make soak), or the default.
func rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("DROVER_TEST_ROUNDS")); err == nil {
		return n
	}
	return usual
}

// Two schedulers of one cluster, killed at random points and started again, beside a master that writes.
func TestTwoSchedulersKilledAnywhereLeaveNoHalfMadeSnapshot(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	addr := embedded(t)
	log := openLog(t, addr)
	m := newMaster(t, log, filepath.Join(base, "datadir"), time.Hour)
	stop := m.run(30 * time.Millisecond)
	store, err := snapshot.OpenDir(filepath.Join(base, "store"))
	if err != nil {
		t.Fatal(err)
	}
	config := func(name string) childConfig {
		return childConfig{Broker: addr, Store: filepath.Join(base, "store"), Datadir: m.datadir, Interval: 50 * time.Millisecond, Name: name}
	}
	first, second := config("a").start(t), config("b").start(t)
	state := func() State {
		t.Helper()
		s, err := ReadState(t.Context(), store, testCluster)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	cutOff := 0
	for round := range rounds(12) {
		within(t, time.Minute, "a run begins", func() error {
			if s := state(); s.Running == nil {
				return errors.New("none is under way")
			}
			return nil
		})
		pause(t.Context(), rand.N(300*time.Millisecond))
		working, name := first, "a"
		if r := state().Running; r != nil {
			if cutOff++; r.Node == "b" {
				working, name = second, "b"
			}
		}
		if err := working.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = working.Wait()
		next := config(name).start(t)
		if name == "a" {
			first = next
		} else {
			second = next
		}
		if round%4 == 3 { // let one be finished
			since := time.Now()
			within(t, time.Minute, "the other one takes over", func() error {
				runs := state().Runs
				for _, r := range runs {
					if r.Outcome == Succeeded && r.Started.After(since) {
						return nil
					}
				}
				return fmt.Errorf("no good run since %v: %+v", since, runs[max(0, len(runs)-1):])
			})
		}
	}
	for name, child := range map[string]*os.Process{"a": first.Process, "b": second.Process} {
		if err := child.Signal(syscall.SIGTERM); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, err := range []error{first.Wait(), second.Wait()} {
		if err != nil {
			t.Errorf("told to stop, a scheduler ended with: %v", err)
		}
	}
	t.Logf("killed in the middle of %d runs; the state knows %d", cutOff, len(state().Runs))
	if cutOff < rounds(12)/2 {
		t.Errorf("the fault fired %d times only", cutOff)
	}
	noOverlap(t, state().Runs)

	c := config("last")
	last := func() {
		t.Helper()
		o, err := c.options(log)
		if err != nil {
			t.Fatal(err)
		}
		o.Force = true
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if report, err := s.Once(deadline(t, time.Minute)); err != nil || report.Run == nil {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	last()
	pause(t.Context(), 1100*time.Millisecond) // then all that nobody needs is old enough to go
	last()
	stop()
	nothingLeft(t, base)
	list, err := snapshot.List(t.Context(), snapshot.ListOptions{Cluster: testCluster, Store: store})
	if err != nil || len(list) < 2 {
		t.Fatalf("%d snapshots, %v", len(list), err)
	}
	for _, s := range list {
		if s.Broken != nil {
			t.Fatal(s.Broken)
		}
		if _, err := snapshot.Verify(deadline(t, time.Minute), snapshot.VerifyOptions{Cluster: testCluster, Store: store, Select: snapshot.Select{ID: s.ID}}); err != nil {
			t.Fatal(err)
		}
		restored := filepath.Join(base, "restored", s.ID)
		if _, err := snapshot.Restore(deadline(t, time.Minute), snapshot.RestoreOptions{Cluster: testCluster, Store: store, Select: snapshot.Select{ID: s.ID}, Datadir: restored}); err != nil {
			t.Fatal(err)
		}
		m.same(restored, s.Sequence)
		if _, err := log.Join(deadline(t, time.Minute), s.Position()); err != nil {
			t.Error(err)
		}
	}
	dry, err := snapshot.Prune(t.Context(), snapshot.PruneOptions{Cluster: testCluster, Store: store, Keep: 100, OrphanAge: -1})
	if err != nil || dry.Objects > 0 {
		t.Errorf("%d objects are needed by nothing, %v", dry.Objects, err)
	}
	for o, err := range store.List(t.Context(), testCluster+"/leases/") {
		t.Errorf("a lease is left: %s, %v", o.Key, err)
	}
	if s := state(); s.Running != nil || s.Failures != 0 {
		t.Errorf("%+v", s.Running)
	}
}

// noOverlap asserts that no two good runs were made at the same time.
func noOverlap(t *testing.T, runs []Run) {
	t.Helper()
	var end time.Time
	good := 0
	for _, r := range runs {
		if r.Outcome != Succeeded {
			if r.Outcome == Failed && !strings.Contains(r.Error, "cut off") {
				t.Errorf("a run failed: %+v", r)
			}
			continue
		}
		if good++; r.Started.Before(end) {
			t.Errorf("a run began at %v, the one before ended at %v", r.Started, end)
		}
		end = r.Started.Add(r.Duration())
	}
	if good == 0 {
		t.Error("there was no good run")
	}
}

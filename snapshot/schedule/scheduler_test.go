package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
)

// Fault 15, the part of it that is no emergency.
func TestEveryThirdSnapshotFailsForTwentyRetentionPeriodsAndReplicasCanAlwaysStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		failed := 0
		w.backend.createErr = func(n int) error {
			if n%3 == 0 {
				failed++
				return errors.New("disk on fire")
			}
			return nil
		}
		s, stop := w.run()
		defer stop()
		time.Sleep(hour)
		for range 20 * 24 {
			time.Sleep(hour)
			if err := w.lost(); err != nil {
				t.Fatalf("after %v: %v", time.Since(w.topic.begun), err)
			}
		}
		first, _, _ := w.topic.Bounds(t.Context())
		if first < 19*24*3600 || failed < 30 {
			t.Fatalf("the topic begins at %d, %d snapshots failed", first, failed)
		}
		creates, verifies, prunes := w.backend.counts()
		t.Logf("%d creates, %d failed, %d verified, %d prunes", creates, failed, verifies, prunes)
		// A failed one is tried again at once, so the rhythm holds: 20 days of one each four hours.
		if good := creates - failed; good < 118 || good > 124 || prunes != verifies {
			t.Errorf("%d good ones in 20 days, %d prunes", good, prunes)
		}
		if rang := w.bell.of(AlertHeadroom); len(rang) > 0 {
			t.Errorf("headroom alerts: %v", rang)
		}
		if rang := w.bell.of(AlertFailed); len(rang) < 60 || slices.Contains(rang, "critical") || rang[0] != "warning" || rang[1] != "over" {
			t.Errorf("alerts of failures: %v", rang)
		}
		if n := len(w.state().Runs); n != runsKept {
			t.Errorf("%d runs are kept", n)
		}
		status := s.Status(t.Context())
		if extra := status.Extra.(Extra); !status.Ready && extra.Failures == 0 || status.Offset < first || extra.LastRun == nil || extra.NextRun.IsZero() {
			t.Errorf("%+v", status)
		}
	})
}

// What the test above holds against: nobody makes snapshots.
func TestWithoutSnapshotsTheNewestIsLostAfterAllAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, stop := w.run()
		defer stop()
		time.Sleep(hour) // one is made
		broken := time.Now()
		w.backend.set(func(b *simBackend) { b.createErr = func(int) error { return errors.New("disk on fire") } })
		for w.lost() == nil {
			time.Sleep(time.Minute)
		}
		lost := time.Now()
		time.Sleep(2 * time.Minute)
		for _, c := range []struct {
			name, severity string
			min, max       time.Duration // before it was lost
		}{
			{AlertFailed, "warning", 19 * hour, 21 * hour},
			{AlertFailing, "critical", 19 * hour, 21 * hour},
			{AlertHeadroom, "warning", 11*hour + 50*time.Minute, 12*hour + 5*time.Minute},
			{AlertHeadroom, "critical", 5*hour + 50*time.Minute, 6*hour + 5*time.Minute},
			{AlertLost, "critical", -5 * time.Minute, 0},
		} {
			at := w.bell.first(c.name, c.severity)
			if before := lost.Sub(at); at.IsZero() || before < c.min || before > c.max {
				t.Errorf("%s %s: %v before it was lost, want %v to %v", c.name, c.severity, before, c.min, c.max)
			}
		}
		if status := s.Status(t.Context()); status.Ready || !strings.Contains(fmt.Sprint(status.Reasons), "no longer retained") {
			t.Errorf("%+v", status)
		}
		t.Logf("lost %v after snapshots began to fail", lost.Sub(broken))
		// It mends by itself.
		w.backend.set(func(b *simBackend) { b.createErr = nil })
		time.Sleep(2 * hour)
		w.want("lost", w.lost(), nil)
		for _, name := range []string{AlertFailed, AlertFailing, AlertHeadroom, AlertLost} {
			if rang := w.bell.of(name); rang[len(rang)-1] != "over" {
				t.Errorf("%s: %v", name, rang)
			}
		}
		if status := s.Status(t.Context()); !status.Ready {
			t.Errorf("%+v", status.Reasons)
		}
	})
}

func TestHeadroomIsWatchedWhileASnapshotTakesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.RepeatEvery = 100 * hour
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		w.backend.set(func(b *simBackend) { b.createTakes = 100 * hour })
		time.Sleep(21 * hour)
		w.want("headroom alerts", w.bell.of(AlertHeadroom), "[warning critical]")
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v to stop", took)
		}
		runs := w.state().Runs
		if last := runs[len(runs)-1]; last.Outcome != Stopped || last.Step != "create" || w.state().Failures != 0 || w.state().Running != nil {
			t.Errorf("a run that was told to stop is no failure: %+v", last)
		}
	})
}

func TestARunThatWasCutOffIsTakenUpByTheNextScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, stop := w.run()
		time.Sleep(12 * time.Minute) // it is verifying
		stop()
		w.want("verified", w.lost(), "none is usable")
		// As kill -9 leaves it:
		n := notes{store: w.notes, cluster: testCluster}
		if err := n.change(t.Context(), func(s *State) { s.Running = &Run{Started: time.Now(), Step: "verify"} }); err != nil {
			t.Fatal(err)
		}
		_, stop = w.run()
		defer stop()
		time.Sleep(10 * time.Minute)
		creates, verifies, _ := w.backend.counts()
		if creates != 1 || verifies != 2 || w.lost() != nil {
			t.Errorf("%d creates, %d verifies, %v", creates, verifies, w.lost())
		}
		runs := w.state().Runs
		if n := len(runs); n != 3 || runs[1].Outcome != Failed || !strings.Contains(runs[1].Error, "cut off during verify") || runs[2].Outcome != Succeeded {
			t.Errorf("%+v", runs)
		}
	})
}

// This process stood still for so long that another took the lease; that one then died.
func TestALostLeaseStopsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.backend.createTakes = hour
		_, stop := w.run()
		defer stop()
		time.Sleep(10 * time.Minute)
		const key = testCluster + "/leases/schedule.json"
		const other = `{"format":1,"purpose":"schedule","host":"elsewhere","boot":"another","pid":1,"started":"1","nonce":"n","seconds":30,"renewed":"2026-11-21T00:00:00Z"}`
		if err := w.notes.Put(t.Context(), key, strings.NewReader(other), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if n := func() int { w.backend.mu.Lock(); defer w.backend.mu.Unlock(); return w.backend.atOnce }(); n != 0 {
			t.Error("the create goes on")
		}
		time.Sleep(20 * time.Minute)
		if s := w.state(); len(s.Runs) != 1 || s.Failures != 1 || !strings.Contains(s.Runs[0].Error, "lost its lease") || s.Running == nil {
			t.Errorf("%+v", s)
		}
		time.Sleep(hour)
		w.want("lost", w.lost(), nil)
	})
}

// What a run left may have been overtaken by retention meanwhile, which its verification finds when it replays the topic.
func TestALeftoverThatTheLogDoesNotContinueIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.backend.list = []Point{{ID: "left", Taken: time.Now()}}
		w.backend.verifyErr = func(n int) error {
			if n == 1 {
				return &changelog.NotRetainedError{FirstOffset: 9}
			}
			return nil
		}
		_, stop := w.run()
		defer stop()
		time.Sleep(30 * time.Minute)
		if runs := w.state().Runs; len(runs) != 1 || runs[0].Outcome != Succeeded || runs[0].Snapshot != "snap-001" || w.lost() != nil {
			t.Errorf("%+v, %v", runs, w.lost())
		}
	})
}

func TestADamagedSnapshotIsNotVerifiedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.backend.verifyErr = func(n int) error {
			if n == 1 {
				return fmt.Errorf("%w: a flip", snapshot.ErrCorrupt)
			}
			return nil
		}
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		creates, verifies, _ := w.backend.counts()
		if creates != 2 || verifies != 2 || w.lost() != nil {
			t.Errorf("%d creates, %d verifies, %v", creates, verifies, w.lost())
		}
	})
}

func TestFailuresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.backend.createTakes = 0
		var at []time.Time
		w.backend.createErr = func(int) error { at = append(at, time.Now()); return errors.New("no") }
		_, stop := w.run()
		defer stop()
		time.Sleep(4 * hour)
		stop()
		var waits []time.Duration
		for i := range at[1:] {
			waits = append(waits, at[i+1].Sub(at[i]).Round(time.Minute))
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 30, 30}; len(waits) < len(want) || fmt.Sprint(waits[:7]) != "[1m0s 2m0s 4m0s 8m0s 16m0s 30m0s 30m0s]" {
			t.Errorf("waits %v", waits)
		}
	})
}

func TestABusyStoreIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.backend.createErr = func(n int) error {
			if n < 4 {
				return fmt.Errorf("%w: somebody", snapshot.ErrBusy)
			}
			return nil
		}
		_, stop := w.run()
		defer stop()
		time.Sleep(2 * hour)
		if rang := w.bell.of(AlertFailed); len(rang) > 0 || w.lost() != nil {
			t.Errorf("%v, %v", rang, w.lost())
		}
	})
}

func TestAFullStoreIsPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.backend.createErr = func(n int) error {
			if n == 2 {
				return fmt.Errorf("%w: sim", snapshot.ErrFull)
			}
			return nil
		}
		_, stop := w.run()
		defer stop()
		time.Sleep(4*hour + 13*time.Minute) // the second one failed, the third has not ended
		if creates, verifies, prunes := w.backend.counts(); creates < 2 || verifies != 1 || prunes != 2 {
			t.Errorf("%d creates, %d verifies, %d prunes", creates, verifies, prunes)
		}
		runs := w.state().Runs
		if last := runs[len(runs)-1]; last.Step != "create" || last.Outcome != Failed {
			t.Errorf("%+v", last)
		}
	})
}

// Design §5: no prune may break the headroom.
func TestNothingIsPrunedWhileHeadroomIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Interval, w.opts.RetryMin = 20*hour, hour
		stale := false
		w.backend.verifyErr = func(int) error {
			if stale { // the snapshot is of a source that stands still
				w.backend.set(func(b *simBackend) { b.list[len(b.list)-1].Position.Offset = 10 })
			}
			return nil
		}
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		stale = true
		time.Sleep(20 * hour)
		if creates, _, prunes := w.backend.counts(); creates < 2 || prunes != 1 {
			t.Errorf("%d creates, %d prunes", creates, prunes)
		}
		w.want("alerts", w.bell.of(AlertPrune), "[warning]")
	})
}

func TestAnIntervalTooLongForTheRetentionIsShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Interval = 48 * hour
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		for range 10 * 24 {
			time.Sleep(hour)
			if err := w.lost(); err != nil {
				t.Fatal(err)
			}
		}
		if creates, _, _ := w.backend.counts(); creates < 13 || creates > 15 { // one each 18 hours
			t.Errorf("%d creates", creates)
		}
	})
}

func TestTwoSchedulersDoNotCollide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first, stopFirst := w.run()
		time.Sleep(time.Second)
		second, stopSecond := w.run() // simBackend panics at two creates side by side
		defer stopSecond()
		time.Sleep(9 * hour)
		a, b := first.Status(t.Context()).Extra.(Extra), second.Status(t.Context()).Extra.(Extra)
		if a.Phase != "waiting" || b.Phase != "standing by" || b.Holder == "" || b.HeadroomSeconds == nil {
			t.Errorf("%+v\n%+v", a, b)
		}
		creates, _, _ := w.backend.counts()
		w.want("creates", creates, 3)
		// A third, from cron, ends well and says who is at work.
		report, err := w.scheduler().Once(t.Context())
		if err != nil || !strings.Contains(report.Skipped, "schedule runs on") {
			t.Errorf("%+v, %v", report, err)
		}
		stopFirst()
		time.Sleep(4 * hour)
		if b := second.Status(t.Context()).Extra.(Extra); b.Phase == "standing by" {
			t.Errorf("%+v", b)
		}
		creates, _, _ = w.backend.counts()
		w.want("creates", creates, 4)
	})
}

func TestOneShots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		once := func() (Report, error) { return w.scheduler().Once(t.Context()) }
		report, err := once()
		if err != nil || report.Run == nil || report.Run.Outcome != Succeeded || report.Measured.Condition != Bounded || w.lost() != nil {
			t.Fatalf("%+v, %v", report, err)
		}
		if len(w.notes.objects) != 1 {
			t.Errorf("the lease is left: %v", w.notes.objects)
		}
		time.Sleep(hour)
		if report, err = once(); err != nil || report.Run != nil || !strings.Contains(report.Skipped, "due at") {
			t.Errorf("%+v, %v", report, err)
		}
		w.opts.Force = true
		if report, err = once(); err != nil || report.Run == nil {
			t.Errorf("%+v, %v", report, err)
		}
		w.opts.Force = false
		time.Sleep(4 * hour)
		w.backend.createErr = func(int) error { return errors.New("disk on fire") }
		if report, err = once(); err == nil || !strings.Contains(err.Error(), "disk on fire") || report.Run.Outcome != Failed {
			t.Errorf("%+v, %v", report, err)
		}
		w.want("alerts", w.bell.of(AlertFailed), "[warning]")
		time.Sleep(25 * hour)
		if report, err = once(); err == nil || report.Measured.Condition != Lost {
			t.Errorf("%+v, %v", report, err)
		}
		w.want("alerts of failures: the state remembers that it rang", w.bell.of(AlertFailed), "[warning warning]") // repeated after 4 h
		w.want("alerts", w.bell.of(AlertLost), "[critical]")
		if report, err = once(); err == nil || report.Run == nil { // it does not back off: cron sees to the time between
			t.Errorf("%+v, %v", report, err)
		}
		w.backend.createErr = nil
		w.backend.verifyErr = func(int) error { // the source stands still
			w.backend.set(func(b *simBackend) { b.list[len(b.list)-1].Position.Offset = 10 })
			return nil
		}
		if report, err = once(); !errors.Is(err, ErrLost) || report.Run == nil || report.Run.Outcome != Succeeded {
			t.Errorf("%+v, %v", report, err)
		}
		w.backend.verifyErr = nil
		if report, err = once(); err != nil || len(report.Alerts) > 0 {
			t.Errorf("%+v, %v", report, err)
		}
		w.want("alerts", w.bell.of(AlertLost), "[critical over]")
	})
}

func TestAStoreThatCannotBeReachedIsAlarmedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, stop := w.run()
		defer stop()
		time.Sleep(hour)
		away := fmt.Errorf("%w: no route", snapshot.ErrUnreachable)
		w.backend.set(func(b *simBackend) { b.listErr = away })
		w.notes.fail(away)
		time.Sleep(10 * time.Minute)
		w.want("unknown", w.bell.of(AlertUnknown), "[warning]")
		w.want("no lease", w.bell.of(AlertFailed), "[critical]")
		if status := s.Status(t.Context()); status.Ready || status.Extra.(Extra).Phase != "blocked" {
			t.Errorf("%+v", status)
		}
		w.backend.set(func(b *simBackend) { b.listErr = nil })
		w.notes.fail(nil)
		time.Sleep(10 * time.Minute)
		w.want("unknown", w.bell.of(AlertUnknown), "[warning over]")
		w.want("no lease", w.bell.of(AlertFailed), "[critical over]")
		time.Sleep(8 * hour)
		w.want("lost", w.lost(), nil)
	})
}

func TestOptionsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, spoil := range map[string]func(*Options){
			"cluster":   func(o *Options) { o.Cluster = "A B" },
			"topic":     func(o *Options) { o.Topic = nil },
			"notes":     func(o *Options) { o.Notes = nil },
			"interval":  func(o *Options) { o.Interval = 0 },
			"limit":     func(o *Options) { o.ExtendRetention = true },
			"threshold": func(o *Options) { o.WarnBelow, o.CriticalBelow = hour, 2*hour },
			"negative":  func(o *Options) { o.RetryMin = -1 },
		} {
			w := newWorld(t)
			spoil(&w.opts)
			if _, err := New(w.opts); !errors.Is(err, snapshot.ErrUsage) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		reg := prometheus.NewRegistry()
		w.opts.Registerer = reg
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		synctest.Wait()
		got := gathered(t, reg)
		for name, want := range map[string]float64{
			"drover_snapshot_headroom_seconds": 24*3600 - 3600, "drover_snapshot_failures": 0, "drover_snapshot_scheduler_active": 1,
			"drover_snapshot_retention_seconds": 24 * 3600, "drover_snapshot_last_success_timestamp_seconds": float64(time.Now().Unix()) - 3600,
			"drover_snapshot_retention_extended": 0, "drover_snapshot_running": 0,
			"drover_snapshot_duration_seconds{all}": 900, "drover_snapshot_duration_seconds{verify}": 300, "drover_snapshot_runs_total{ok}": 1,
		} {
			if v, ok := got[name]; !ok || v < want-120 || v > want+120 {
				t.Errorf("%s is %v (%v), want about %v", name, v, ok, want)
			}
		}
	})
}

func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += "{" + l.GetValue() + "}"
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return got
}

func TestASourceThatFailsIsAFailedRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		released := 0
		w.opts.Source = prepared(func() (func(), error) {
			if released == 0 {
				released++
				return nil, errors.New("no master")
			}
			return func() { released++ }, nil
		})
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		runs := w.state().Runs
		if len(runs) != 2 || runs[0].Step != "prepare" || runs[0].Error != "no master" || runs[1].Outcome != Succeeded || released != 2 {
			t.Errorf("%+v, released %d", runs, released)
		}
	})
}

type prepared func() (func(), error)

func (p prepared) String() string { return "test" }

func (p prepared) Prepare(context.Context) (string, func(), error) {
	release, err := p()
	return "datadir", release, err
}

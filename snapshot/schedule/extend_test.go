package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/snapshot"
)

// failing has a world in which one snapshot was made and no more, and whose retention may be extended to 5 days.
func failing(t *testing.T) *world {
	w := newWorld(t)
	w.opts.ExtendRetention, w.opts.MaxRetention, w.opts.RepeatEvery = true, 120*hour, 1000*hour
	w.backend.createErr = func(n int) error {
		if n > 1 {
			return errors.New("disk on fire")
		}
		return nil
	}
	return w
}

func (w *world) mend() { w.backend.set(func(b *simBackend) { b.createErr = nil }) }

// Fault 15: snapshots fail for three times the retention.
func TestRetentionIsExtendedWhileSnapshotsFailAndPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		s, stop := w.run()
		defer stop()
		for range 72 {
			time.Sleep(hour)
			if err := w.lost(); err != nil {
				t.Fatalf("after %v: %v", time.Since(w.topic.begun), err)
			}
		}
		// Whenever 6 hours are left, it is made 12.
		for i, want := range []time.Duration{30 * hour, 36 * hour, 42 * hour} {
			if got := w.topic.sets[i]; got < want || got > want+time.Duration(i+1)*2*time.Minute {
				t.Errorf("step %d to %v, want %v", i, got, want)
			}
		}
		if rang := w.bell.of(AlertExtended); len(rang) != 1 {
			t.Errorf("alerts of the extension: %v", rang)
		}
		if first := w.bell.first(AlertHeadroom, alert.Warning); first.IsZero() {
			t.Error("an extension does not make headroom fine")
		}
		if rang := w.bell.of(AlertLost); len(rang) > 0 {
			t.Errorf("lost: %v", rang)
		}
		if e := w.state().Extension; e == nil || e.Original.d() != 24*hour || e.Newest != "snap-001" {
			t.Errorf("%+v", e)
		}
		if e := s.Status(t.Context()).Extra.(Extra).Extension; e == nil {
			t.Error("the status does not tell")
		}
		w.mend()
		time.Sleep(2 * hour)
		w.want("retention", w.topic.retention.Time, 24*hour)
		w.want("extension", w.state().Extension, "<nil>")
		for _, name := range []string{AlertExtended, AlertHeadroom, AlertFailed, AlertFailing} {
			if rang := w.bell.of(name); rang[len(rang)-1] != "over" {
				t.Errorf("%s: %v", name, rang)
			}
		}
	})
}

func TestExtensionEndsAtItsLimitWithAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		w.opts.MaxRetention = 40 * hour
		_, stop := w.run()
		defer stop()
		time.Sleep(hour)
		for w.lost() == nil {
			time.Sleep(time.Minute)
		}
		lost := time.Since(w.topic.begun)
		if lost < 40*hour || lost > 41*hour || slices.Max(w.topic.sets) != 40*hour {
			t.Errorf("lost after %v, retention was set to %v", lost, w.topic.sets)
		}
		if before := time.Since(w.bell.first(AlertExtension, alert.Critical)); before < 5*hour || before > 7*hour {
			t.Errorf("that no more can be done was said %v before", before)
		}
	})
}

func TestWhoComesNextPutsTheRetentionBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		_, stop := w.run()
		time.Sleep(19 * hour)
		stop()
		w.want("steps", len(w.topic.sets), 1)
		w.opts.ExtendRetention = false // whatever it is told
		w.mend()
		_, stop = w.run()
		defer stop()
		time.Sleep(hour)
		w.want("retention", w.topic.retention.Time, 24*hour)
		w.want("extended", w.bell.of(AlertExtended), "[warning over]")
	})
}

// The original is noted before the retention is set. A process killed in between has noted what it did not do.
func TestANoteWithoutItsSettingDoesNoHarm(t *testing.T) {
	for _, kept := range []time.Duration{24 * hour, 31 * hour} {
		synctest.Test(t, func(t *testing.T) {
			w := failing(t)
			n := notes{store: w.notes, cluster: testCluster}
			steps := []Duration{Duration(31 * hour), Duration(37 * hour)}
			if err := n.change(t.Context(), func(s *State) {
				s.Extension = &Extension{Original: Duration(24 * hour), Steps: steps, Newest: "snap-000"}
			}); err != nil {
				t.Fatal(err)
			}
			w.topic.retention.Time = kept
			_, stop := w.run()
			defer stop()
			time.Sleep(hour) // a snapshot is made
			w.want("retention", w.topic.retention.Time, 24*hour)
			w.want("extension", w.state().Extension, "<nil>")
		})
	}
}

func TestARetentionThatSomebodySetIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		_, stop := w.run()
		defer stop()
		time.Sleep(20 * hour)
		w.topic.set(func(s *simTopic) { s.retention.Time = 70 * hour })
		time.Sleep(hour)
		w.want("extension", w.state().Extension, "<nil>")
		w.mend()
		time.Sleep(8 * hour)
		w.want("retention", w.topic.retention.Time, 70*hour)
	})
}

func TestAFailedExtensionIsAlarmedOfAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		w.topic.setErr = errors.New("not allowed: grant the Kafka user AlterConfigs")
		_, stop := w.run()
		defer stop()
		time.Sleep(20 * hour)
		w.want("alarm", w.bell.of(AlertExtension), "[critical]")
		w.topic.set(func(s *simTopic) { s.setErr = nil })
		time.Sleep(hour)
		w.want("alarm", w.bell.of(AlertExtension), "[critical over]")
		w.want("steps", len(w.topic.sets), 1)
	})
}

func TestRetentionBySizeCannotBeExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		time.Sleep(10 * time.Minute)
		_, stop := w.run()
		defer stop()
		time.Sleep(2 * hour)
		w.topic.set(func(s *simTopic) { s.retention.Bytes, s.first = 1<<30, 60 })
		time.Sleep(2 * time.Minute)
		if rang := w.bell.of(AlertExtension); len(rang) != 1 || len(w.topic.sets) > 0 {
			t.Errorf("%v, set to %v", rang, w.topic.sets)
		}
	})
}

// The store is full: not even a lease can be written. Then the frames are kept all the same, and once there is space the
// original is put back.
func TestExtensionWithoutAStoreToWriteTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failing(t)
		_, stop := w.run()
		defer stop()
		_, stopSecond := w.run()
		defer stopSecond()
		time.Sleep(hour)
		w.notes.fail(fmt.Errorf("%w: sim", snapshot.ErrFull))
		for range 40 {
			time.Sleep(hour)
			if err := w.lost(); err != nil {
				t.Fatalf("after %v: %v", time.Since(w.topic.begun), err)
			}
		}
		w.want("no lease", w.bell.first(AlertFailed, alert.Critical).IsZero(), false)
		w.notes.fail(nil)
		w.mend()
		time.Sleep(3 * hour)
		w.want("lost", w.lost(), nil)
		w.want("retention", w.topic.retention.Time, 24*hour)
		w.want("extension", w.state().Extension, "<nil>")
	})
}

func TestAnAlertIsSentOnceForEachChangeAndAgainAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.FailuresAlarm = 1000
		w.backend.createErr = func(n int) error { return errors.New("disk on fire") }
		w.bell.set(errors.New("nobody hears"))
		_, stop := w.run()
		time.Sleep(20 * time.Minute)
		if n := len(w.bell.of(AlertFailed)); n < 8 {
			t.Errorf("an alert that was not delivered was tried %d times", n)
		}
		w.bell.set(nil)
		time.Sleep(2 * time.Minute)
		sent := len(w.bell.of(AlertFailed))
		time.Sleep(hour)
		stop()
		_, stop = w.run() // the next process knows what the one before it sent
		defer stop()
		time.Sleep(2 * hour)
		w.want("sent", len(w.bell.of(AlertFailed)), sent)
		time.Sleep(hour)
		w.want("sent again after 4 hours", len(w.bell.of(AlertFailed)), sent+1)
		if a := w.state().Alerts; !slices.ContainsFunc(a, func(f Firing) bool {
			return f.Alert.Name == AlertFailed && time.Since(f.Alert.At) > 4*hour && time.Since(f.Sent) < hour
		}) {
			t.Errorf("%+v", a)
		}
		w.bell.set(errors.New("nobody hears"))
		w.mend()
		time.Sleep(hour)
		n := len(w.bell.of(AlertFailed))
		w.bell.set(nil)
		time.Sleep(hour)
		words := w.bell.of(AlertFailed)
		if n < sent+10 || len(words) != n+1 || words[n] != "over" {
			t.Errorf("the end was told %d times before it was heard; then %v", n-sent, words[n:])
		}
	})
}

func TestAnotherSeverityIsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.RepeatEvery = 1000 * hour
		s := w.scheduler()
		for _, severity := range []string{"warning", "warning", "critical", "warning"} {
			s.tell(t.Context(), []alert.Alert{{Name: "A", Cluster: testCluster, Severity: severity, At: time.Now()}}, nil)
			time.Sleep(time.Minute)
		}
		s.tell(t.Context(), nil, map[string]bool{"A": true}) // nobody knows
		s.tell(t.Context(), nil, nil)
		w.want("sent", w.bell.of("A"), "[warning critical warning over]")
		if since := w.bell.rings[2].At; since != w.bell.rings[0].At {
			t.Errorf("since %v, then since %v", w.bell.rings[0].At, since)
		}
		if strings.Contains(fmt.Sprint(w.state().Alerts), "A") {
			t.Error("it is still noted")
		}
	})
}

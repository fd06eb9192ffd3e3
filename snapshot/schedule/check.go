package schedule

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drover-io/drover/ops/alert"
)

// Names of alerts.
const (
	AlertHeadroom  = "DroverSnapshotHeadroomLow"      // value: seconds of headroom
	AlertLost      = "DroverSnapshotLost"             // nothing to start a replica from
	AlertUnknown   = "DroverSnapshotHeadroomUnknown"  // store or brokers do not answer; value: seconds since the last good look
	AlertFailed    = "DroverSnapshotFailed"           // the last run failed; value: failures in a row
	AlertFailing   = "DroverSnapshotsFailing"         // FailuresAlarm runs in a row; value: how many
	AlertPrune     = "DroverSnapshotPruneFailed"      // the store grows
	AlertExtended  = "DroverRetentionExtended"        // value: seconds of retention now
	AlertExtension = "DroverRetentionExtensionFailed" // headroom falls on; value: seconds of it
)

// limits are the thresholds of headroom.
type limits struct{ warn, critical, extend, step time.Duration }

func (s *Scheduler) limits(m *Measured) limits {
	retention := m.Retention
	// An extension is no reason to alarm earlier.
	if e := s.notes.get().Extension; e != nil && (retention == 0 || e.Original.d() < retention) {
		retention = e.Original.d()
	}
	l := limits{warn: s.opts.WarnBelow, critical: s.opts.CriticalBelow, extend: s.opts.ExtendBelow, step: s.opts.ExtendStep}
	def(&l.warn, retention/2)
	def(&l.critical, min(l.warn, retention/4))
	def(&l.extend, l.critical)
	def(&l.step, retention/2)
	l.step = max(l.step, l.extend+l.extend/2) // or each look would be a step
	return l
}

// measure looks at store and topic, and says in view and metrics what it saw.
func (s *Scheduler) measure(ctx context.Context) (m Measured, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	points, err := s.opts.Backend.List(ctx)
	if err == nil {
		m, err = Measure(ctx, s.opts.Topic, points, time.Now)
	}
	s.set(func(v *view) {
		if err != nil {
			v.unknown, v.failing = err, v.failing+1
			return
		}
		v.unknown, v.failing, v.measured, v.points = nil, 0, &m, points
	})
	if err != nil {
		s.metrics.badChecks.Inc()
	}
	return m, err
}

// check looks at the headroom, extends the retention where that is wanted, and alerts. With final, nobody will look again soon.
func (s *Scheduler) check(ctx context.Context, final bool) {
	s.checking.Lock()
	defer s.checking.Unlock()
	if ctx.Err() != nil {
		return
	}
	m, err := s.measure(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.log.Warn("headroom cannot be told", "cause", err)
	} else {
		unset := s.adjust(ctx, &m)
		if unset != nil && ctx.Err() == nil {
			s.log.Error("the topic's retention stays as it is", "cause", unset)
		}
		s.set(func(v *view) { v.unset, v.measured = unset, &m })
	}
	if ctx.Err() == nil {
		active, undecided := s.judge(&m, err, final)
		s.tell(ctx, active, undecided)
	}
}

// judge returns the alerts that hold, and the names of those of which nothing is known.
func (s *Scheduler) judge(m *Measured, unknown error, final bool) (active []alert.Alert, undecided map[string]bool) {
	v, state, now := s.get(), s.notes.get(), time.Now()
	add := func(name, severity string, value float64, format string, args ...any) {
		active = append(active, alert.Alert{
			Name: name, Cluster: s.opts.Cluster, Severity: severity, Value: value, At: now,
			Summary: fmt.Sprintf(format, args...), Labels: map[string]string{"store": s.opts.Backend.String()},
		})
	}
	if unknown == nil {
		s.judgeHeadroom(m, &state, add)
	} else {
		undecided = map[string]bool{AlertHeadroom: true, AlertLost: true, AlertExtended: true, AlertExtension: true}
		if v.failing >= badChecks || final {
			since := 0.0
			if v.measured != nil {
				since = now.Sub(v.measured.At).Seconds()
			}
			add(AlertUnknown, alert.Warning, since, "nobody knows whether the newest snapshot can be started from: %v", unknown)
		}
	}
	switch last := lastFailure(&state); {
	case v.blocked != nil && (v.blockedFor >= badChecks || final):
		add(AlertFailed, alert.Critical, float64(state.Failures), "no snapshots can be made: the scheduler gets no lease: %v", v.blocked)
	case state.Failures > 0:
		add(AlertFailed, alert.Warning, float64(state.Failures), "the last snapshot failed (%s): %s", last.Step, last.Error)
	}
	if state.Failures >= s.opts.FailuresAlarm {
		add(AlertFailing, alert.Critical, float64(state.Failures), "%d snapshots in a row failed, the last one (%s): %s", state.Failures,
			lastFailure(&state).Step, lastFailure(&state).Error)
	}
	if v.unpruned != nil {
		add(AlertPrune, alert.Warning, 0, "old snapshots stay, and the store grows: %v", v.unpruned)
	}
	return active, undecided
}

func lastFailure(state *State) Run {
	for _, r := range slices.Backward(state.Runs) {
		if r.Outcome == Failed {
			return r
		}
	}
	return Run{}
}

func (s *Scheduler) judgeHeadroom(m *Measured, state *State, add func(name, severity string, value float64, format string, args ...any)) {
	const hint = "run drover snapshot create and verify by hand, or extend the topic's retention"
	l := s.limits(m)
	left := m.Left.Seconds()
	switch {
	case m.Condition == None && (state.Failures > 0 || time.Since(state.Since) > s.opts.Interval):
		add(AlertLost, alert.Critical, 0, "no replica can be started: %s", m.Reason)
	case m.Condition == Lost:
		add(AlertLost, alert.Critical, 0, "no replica can be started from the newest usable snapshot %s: %s", m.Newest.ID, m.Reason)
	case m.Condition == Bounded && m.Left < l.critical:
		add(AlertHeadroom, alert.Critical, left, "Kafka drops what follows snapshot %s in %v: %s", m.Newest.ID, short(m.Left), hint)
	case m.Condition == Bounded && m.Left < l.warn:
		add(AlertHeadroom, alert.Warning, left, "Kafka drops what follows snapshot %s in %v: %s", m.Newest.ID, short(m.Left), hint)
	}
	if e := state.Extension; e != nil {
		add(AlertExtended, alert.Warning, m.Setting.Time.Seconds(), "the topic's retention was raised from %v to %v to keep snapshot %s of use",
			e.Original.d(), m.Setting.Time, e.Newest)
	}
	if unset := s.get().unset; unset != nil {
		add(AlertExtension, alert.Critical, left, "the topic's retention stays as it is: %v", unset)
	}
}

// describe says a headroom in a few words.
func (h Headroom) describe() string {
	switch h.Condition {
	case Bounded:
		return fmt.Sprintf("%v left", short(h.Left))
	case Unlimited:
		return "no limit"
	default:
		return string(h.Condition) + ": " + h.Reason
	}
}

func short(d time.Duration) time.Duration {
	if d > time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

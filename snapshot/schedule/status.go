package schedule

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
)

// Extra is what a scheduler adds to the common status, whose position and head are those of the newest usable snapshot.
type Extra struct {
	// Phase is starting, waiting, making a snapshot, standing by (Holder says for whom), blocked or stopped.
	Phase  string `json:"phase"`
	Holder string `json:"holder,omitempty"`
	// Step is what of making a snapshot goes on: prepare, create, verify or prune; Progress is how far that is.
	Step     string             `json:"step,omitempty"`
	Progress *snapshot.Progress `json:"progress,omitempty"`
	// NextRun is when the next snapshot is begun.
	NextRun time.Time `json:"nextRun,omitzero"`
	LastRun *Run      `json:"lastRun"`
	// Failures are those in a row.
	Failures int `json:"failures"`
	// Headroom is nil while it is not known.
	Headroom        *Headroom  `json:"headroom"`
	HeadroomSeconds *float64   `json:"headroomSeconds"` // nil: not known, or no limit
	Newest          *Point     `json:"newest"`
	Extension       *Extension `json:"extension"`
	Alerts          []Firing   `json:"alerts"`
}

// Status implements admin.Source. A scheduler is ready while headroom is known and not critical, and snapshots do not fail.
func (s *Scheduler) Status(context.Context) admin.Status {
	v, state := s.get(), s.notes.get()
	extra := Extra{
		Phase: v.phase, Holder: v.holder, Step: v.step, Progress: s.opts.Progress.get(), NextRun: v.next, Failures: state.Failures,
		Extension: state.Extension, Alerts: state.Alerts,
	}
	if n := len(state.Runs); n > 0 {
		extra.LastRun = &state.Runs[n-1]
	}
	out := admin.Status{Role: "scheduler", Cluster: s.opts.Cluster, Offset: -1}
	if m := v.measured; m != nil {
		h := m.Headroom
		extra.Headroom, extra.Newest = &h, m.Newest
		if h.Condition != Unlimited {
			left := h.Left.Seconds()
			extra.HeadroomSeconds = &left
		}
		if p := m.Newest; p != nil {
			out.Timeline, out.Sequence, out.Offset = p.Position.Timeline, p.Position.Sequence, p.Position.Offset
			out.Head = &admin.Block{Number: p.Head.Number, Hash: p.Head.Hash, Time: p.Head.Time}
		}
	}
	out.Reasons = s.reasons(&v, &state)
	out.Ready = len(out.Reasons) == 0
	out.Extra = extra
	return out
}

func (s *Scheduler) reasons(v *view, state *State) (why []string) {
	switch m := v.measured; {
	case m == nil && v.unknown == nil:
		why = append(why, "headroom was not looked at yet")
	case v.unknown != nil:
		why = append(why, "headroom is not known: "+v.unknown.Error())
	case m.short(s.limits(m).critical):
		why = append(why, "headroom: "+m.describe())
	}
	if v.blocked != nil {
		why = append(why, "the scheduler gets no lease: "+v.blocked.Error())
	}
	if state.Failures > 0 {
		why = append(why, fmt.Sprintf("%d snapshots in a row failed", state.Failures))
	}
	return why
}

type metrics struct {
	runs        *prometheus.CounterVec
	duration    *prometheus.GaugeVec
	badChecks   prometheus.Counter
	undelivered prometheus.Counter
}

func newMetrics(s *Scheduler, reg prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "drover", Subsystem: "snapshot", Name: name, Help: help}
	}
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts(opts("runs_total", "Runs of this scheduler, by outcome: ok, failed, stopped.")), []string{"outcome"}),
		duration: prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("duration_seconds", "The last good run, by step: prepare, create, verify, prune, all.")),
			[]string{"step"}),
		badChecks:   prometheus.NewCounter(prometheus.CounterOpts(opts("headroom_check_failures_total", "Looks at the headroom that failed."))),
		undelivered: prometheus.NewCounter(prometheus.CounterOpts(opts("alert_failures_total", "Alerts that could not be delivered."))),
	}
	for _, o := range []Outcome{Succeeded, Failed, Stopped} {
		m.runs.WithLabelValues(string(o))
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, fn func(v *view, st *State) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), func() float64 {
			v, state := s.get(), s.notes.get()
			return fn(&v, &state)
		})
	}
	reg.MustRegister(m.runs, m.duration, m.badChecks, m.undelivered,
		gauge("headroom_seconds", "Until Kafka may drop what follows the newest usable snapshot: 0 lost or none, +Inf no limit, NaN unknown.",
			func(v *view, _ *State) float64 { return v.headroom() }),
		gauge("retention_seconds", "The topic's retention.ms; +Inf for ever, NaN unknown.", func(v *view, _ *State) float64 {
			if v.measured == nil || v.unknown != nil {
				return math.NaN()
			}
			return secondsOf(v.measured.Setting)
		}),
		gauge("retention_extended", "1 while the topic's retention is raised.", func(_ *view, st *State) float64 { return flag(st.Extension != nil) }),
		gauge("last_success_timestamp_seconds", "When the newest usable snapshot was taken; 0: none.", func(v *view, _ *State) float64 {
			if v.measured == nil || v.measured.Newest == nil {
				return 0
			}
			return float64(v.measured.Newest.Taken.UnixMilli()) / 1000
		}),
		gauge("failures", "Runs that failed since the last good one.", func(_ *view, st *State) float64 { return float64(st.Failures) }),
		gauge("scheduler_active", "1 while this scheduler is the one at work.", func(v *view, _ *State) float64 { return flag(v.leading) }),
		gauge("running", "1 while a snapshot is being made.", func(v *view, _ *State) float64 { return flag(v.step != "") }),
	)
	return m
}

func (v *view) headroom() float64 {
	switch m := v.measured; {
	case m == nil, v.unknown != nil:
		return math.NaN()
	case m.Condition == Unlimited:
		return math.Inf(1)
	default:
		return m.Left.Seconds()
	}
}

func secondsOf(r changelog.Retention) float64 {
	if r.Time == 0 {
		return math.Inf(1)
	}
	return r.Time.Seconds()
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) ran(r *Run) {
	m.runs.WithLabelValues(string(r.Outcome)).Inc()
	if r.Outcome != Succeeded {
		return
	}
	for step, seconds := range map[string]float64{"prepare": r.Prepare, "create": r.Create, "verify": r.Verify, "prune": r.Prune, "all": r.Seconds} {
		m.duration.WithLabelValues(step).Set(seconds)
	}
}

package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-io/drover/snapshot"
)

// leaseName is that of the lease which the one scheduler at work holds.
const leaseName = "schedule"

const (
	standbyEvery = 10 * time.Second // between two tries for the lease
	badChecks    = 3                // looks in a row that fail until headroom counts as unknown
)

// Scheduler looks after one cluster's snapshots. Run and Once are called once, one of them.
type Scheduler struct {
	opts    Options
	log     *slog.Logger
	notes   notes
	metrics *metrics
	unnoted atomic.Bool // the last change of the notes was not written

	checking sync.Mutex // held for a look at the headroom, and what follows from it
	strange  int        // looks in a row that saw a retention which nobody noted; under checking
	damaged  map[string]bool

	mu   sync.Mutex
	view view
}

// view is what Status shows, and what one part tells the others.
type view struct {
	phase      string
	leading    bool
	holder     string // who has the lease, while this one stands by
	next       time.Time
	step       string
	measured   *Measured // the last good one
	points     []Point
	unknown    error // why the last look failed
	failing    int   // looks that failed in a row
	blocked    error // why no lease can be had
	blockedFor int   // tries in a row
	unset      error // why the retention was not extended or put back
	unpruned   error
}

// New checks the options, and asks nobody yet.
func New(opts Options) (*Scheduler, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Scheduler{
		opts: opts, log: opts.Logger.With("cluster", opts.Cluster), damaged: make(map[string]bool),
		notes: notes{store: opts.Notes, cluster: opts.Cluster}, view: view{phase: "starting"},
	}
	s.metrics = newMetrics(s, opts.Registerer)
	return s, nil
}

func (s *Scheduler) set(f func(*view)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.view)
}

func (s *Scheduler) get() view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// Run makes snapshots until ctx ends, then returns nil. Nothing else ends it: what fails is said in log, metrics, status and
// alerts, and tried again. While another scheduler of the cluster is at work it stands by.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.set(func(v *view) { v.phase, v.leading = "stopped", false })
	for ctx.Err() == nil {
		lease, held, err := snapshot.Hold(ctx, s.opts.Notes, s.opts.Cluster, leaseName, "schedule", s.log)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, snapshot.ErrBusy):
			s.standBy(ctx, err)
		case err != nil:
			s.goBlind(ctx, err)
		default:
			s.lead(held)
			lease.Release()
			if cause := context.Cause(held); errors.Is(cause, snapshot.ErrLeaseLost) && ctx.Err() == nil {
				s.log.Error("this scheduler lost its lease, and what it was doing was stopped", "cause", cause)
			}
			s.set(func(v *view) { v.leading = false })
		}
		if lease != nil {
			lease.Release()
		}
	}
	return nil
}

// standBy waits for a while, and keeps the figures current.
func (s *Scheduler) standBy(ctx context.Context, err error) {
	if v := s.get(); v.holder != holder(err) {
		s.log.Info("another scheduler is at work: standing by", "holder", holder(err))
	}
	s.set(func(v *view) {
		v.phase, v.holder, v.blocked, v.blockedFor, v.next = "standing by", holder(err), nil, 0, time.Time{}
	})
	if s.notes.unwritten() { // from when nobody had the lease
		s.noted(ctx, s.notes.load(ctx))
	}
	if _, err := s.measure(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("headroom cannot be told", "cause", err)
	}
	pause(ctx, standbyEvery)
}

// holder is who an ErrBusy names, without the words that fit creates and prunes only.
func holder(err error) string { return strings.TrimPrefix(err.Error(), snapshot.ErrBusy.Error()+": ") }

// goBlind looks at headroom and alerts without a lease: the store cannot be written. Another scheduler may do the same; alerts
// bear that, and so does raising the retention.
func (s *Scheduler) goBlind(ctx context.Context, err error) {
	if v := s.get(); v.blocked == nil {
		s.log.Error("no snapshots can be made: the scheduler gets no lease", "cause", err)
	}
	s.set(func(v *view) {
		v.phase, v.blocked, v.holder, v.next = "blocked", err, "", time.Time{}
		v.blockedFor++
	})
	if s.notes.get().Since.IsZero() { // a store that cannot be written can be read, perhaps
		s.noted(ctx, s.notes.load(ctx))
	}
	s.check(ctx, false)
	pause(ctx, min(standbyEvery, s.opts.CheckEvery))
}

// lead makes snapshots while the lease is held.
func (s *Scheduler) lead(ctx context.Context) {
	s.set(func(v *view) { v.phase, v.leading, v.holder, v.blocked, v.blockedFor = "waiting", true, "", nil, 0 })
	s.log.Info("this scheduler is at work", "interval", s.opts.Interval, "store", s.opts.Backend.String(), "source", s.opts.Source.String())
	s.begin(ctx)
	stop := s.watch(ctx)
	defer stop()
	for ctx.Err() == nil {
		points, err := s.list(ctx)
		if err != nil {
			s.log.Error("the snapshots cannot be listed", "cause", err)
			pause(ctx, min(s.opts.RetryMin, s.opts.CheckEvery))
			continue
		}
		state := s.notes.get()
		due := s.due(points, &state)
		s.set(func(v *view) { v.phase, v.next = "waiting", due })
		if wait := time.Until(due); wait > 0 {
			// Not for all of it at once: somebody may take a snapshot by hand meanwhile.
			pause(ctx, min(wait, s.opts.CheckEvery))
			continue
		}
		_, _ = s.attempt(ctx, points) // what became of it is noted
		s.check(ctx, false)
	}
}

// begin takes over the notes of whoever was at work before.
func (s *Scheduler) begin(ctx context.Context) {
	err := s.notes.load(ctx)
	state := s.notes.get()
	if err == nil && (state.Running != nil || state.Since.IsZero()) {
		if r := state.Running; r != nil {
			s.log.Warn("a run was cut off", "started", r.Started, "node", r.Node, "step", r.Step)
		}
		now := time.Now().UTC()
		err = s.note(ctx, func(st *State) {
			st.abandoned(now)
			def(&st.Since, now)
		})
	}
	s.noted(ctx, err)
}

// note changes the state. An error needs no more than being known: the change holds in memory, and is written later.
func (s *Scheduler) note(ctx context.Context, f func(*State)) error {
	err := s.notes.change(ctx, f)
	s.noted(ctx, err)
	return err
}

// noted says once that the notes cannot be had, and once that they can again.
func (s *Scheduler) noted(ctx context.Context, err error) {
	if ctx.Err() != nil || s.unnoted.Swap(err != nil) == (err != nil) {
		return
	}
	if err != nil {
		s.log.Error("the scheduler goes on without its notes: it remembers what it cannot write", "cause", err)
		return
	}
	s.log.Info("the scheduler has its notes again")
}

// watch looks at the headroom until stop is called, also while a snapshot takes hours.
func (s *Scheduler) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s.check(ctx, false)
			pause(ctx, s.opts.CheckEvery)
		}
	}()
	return func() { cancel(); <-done }
}

func (s *Scheduler) list(ctx context.Context) ([]Point, error) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return s.opts.Backend.List(ctx)
}

// due tells when the next snapshot is to be begun: when Interval is over since the last one, at once when the newest one is lost
// or about to be (after a new timeline, or an interval too long for the retention), and not too soon after a failure.
func (s *Scheduler) due(points []Point, state *State) time.Time {
	var at time.Time
	for i := len(points) - 1; i >= 0; i-- {
		if !points[i].Usable {
			continue
		}
		at = points[i].Taken
		for _, r := range state.Runs {
			if r.Snapshot == points[i].ID && r.Outcome == Succeeded && r.Started.Before(at) {
				at = r.Started // catching up first may have taken long
			}
		}
		at = at.Add(s.opts.Interval)
		break
	}
	if v := s.get(); v.measured != nil && v.unknown == nil && !at.IsZero() && v.measured.short(s.limits(v.measured).critical) {
		// A source that stands still does not mend it: then not all the time.
		at = time.Time{}
		if n := len(state.Runs); n > 0 {
			at = state.Runs[n-1].Started.Add(state.Runs[n-1].Duration() + s.opts.RetryMax)
		}
	}
	if n := len(state.Runs); n > 0 {
		last := state.Runs[n-1]
		ended := last.Started.Add(last.Duration())
		switch last.Outcome {
		case Failed:
			at = later(at, ended.Add(s.backoff(state.Failures)))
		case Stopped:
			at = later(at, ended.Add(s.opts.RetryMin))
		}
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *Scheduler) backoff(failures int) time.Duration {
	d := s.opts.RetryMin
	for range failures - 1 {
		if d *= 2; d >= s.opts.RetryMax {
			return s.opts.RetryMax
		}
	}
	return d
}

// pause waits, and returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Report says what Once did.
type Report struct {
	// Skipped is why no snapshot was made, empty when one was tried.
	Skipped   string     `json:"skipped,omitempty"`
	Run       *Run       `json:"run,omitempty"`
	Next      time.Time  `json:"next,omitzero"` // when the next one is due
	Measured  *Measured  `json:"headroom"`      // nil: not known
	Extension *Extension `json:"extension,omitempty"`
	Alerts    []Firing   `json:"alerts,omitempty"`
}

// Once makes a snapshot if one is due (with Force: always), verifies it, prunes, judges the headroom and alerts, and returns. When
// another scheduler is at work it does nothing, which is no error. Errors: why the snapshot failed, why headroom could not be
// told, ErrLost.
func (s *Scheduler) Once(ctx context.Context) (r Report, err error) {
	lease, held, err := snapshot.Hold(ctx, s.opts.Notes, s.opts.Cluster, leaseName, "schedule", s.log)
	if errors.Is(err, snapshot.ErrBusy) {
		s.log.Info("another scheduler is at work: nothing to do", "holder", holder(err))
		return Report{Skipped: "another scheduler is at work: " + holder(err)}, nil
	}
	if err != nil {
		if ctx.Err() == nil {
			s.set(func(v *view) { v.blocked = err })
			s.check(ctx, true)
		}
		return r, fmt.Errorf("the scheduler gets no lease: %w", err)
	}
	defer lease.Release()
	s.set(func(v *view) { v.leading = true })
	s.begin(held)
	// When nothing can be started from, a snapshot is due: whoever calls this sees to the time between two of them.
	m, unknown := s.measure(held)
	lost := unknown == nil && m.short(0)
	stop := s.watch(held)
	points, err := s.list(held)
	if err == nil {
		state := s.notes.get()
		if due := s.due(points, &state); time.Until(due) > 0 && !s.opts.Force && !lost {
			r.Skipped = "the next snapshot is due at " + due.UTC().Format(time.RFC3339)
		} else {
			var run Run
			run, err = s.attempt(held, points)
			r.Run = &run
		}
	}
	stop()
	if cause := context.Cause(held); cause != nil {
		return r, errors.Join(err, cause)
	}
	s.check(held, true)
	v, state := s.get(), s.notes.get()
	r.Next, r.Extension, r.Alerts = s.due(v.points, &state), state.Extension, state.Alerts
	if v.unknown == nil {
		r.Measured = v.measured
	}
	switch {
	case err != nil:
	case v.unknown != nil:
		err = fmt.Errorf("headroom is not known: %w", v.unknown)
	case r.Measured != nil && r.Measured.short(0):
		err = fmt.Errorf("%w: %s", ErrLost, r.Measured.Reason)
	}
	return r, err
}

package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-io/drover/snapshot"
)

// attempt makes one snapshot usable, and prunes. What becomes of it is noted in the state.
func (s *Scheduler) attempt(ctx context.Context, points []Point) (Run, error) {
	a := &attempt{s: s, run: Run{Started: time.Now().UTC(), Node: s.opts.Node}}
	err := a.make(ctx, points)
	s.opts.Progress.reset()
	s.set(func(v *view) { v.step, v.phase = "", "waiting" })
	r := &a.run
	r.Seconds = time.Since(r.Started).Seconds()
	switch {
	case err == nil:
		r.Outcome = Succeeded
	case ctx.Err() != nil, errors.Is(err, snapshot.ErrBusy):
		r.Outcome = Stopped
	default:
		r.Outcome = Failed
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		r.Error = err.Error()
	}
	if errors.Is(err, snapshot.ErrLeaseLost) && ctx.Err() != nil {
		return *r, err // the notes are somebody else's now, who finds out that this run was cut off
	}
	// Also when this process was told to stop.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_ = s.note(noting, func(st *State) { st.ended(*r) })
	s.metrics.ran(r)
	switch r.Outcome {
	case Succeeded:
		s.log.Info("a snapshot is usable", "id", r.Snapshot, "took", r.Duration().Round(time.Millisecond), "moved", r.Moved)
	case Failed:
		s.log.Error("no snapshot could be made", "step", r.Step, "failures", s.notes.get().Failures, "cause", err)
	case Stopped:
		s.log.Warn("the run was stopped", "step", r.Step, "cause", err)
	}
	return *r, err
}

// attempt is one run.
type attempt struct {
	s   *Scheduler
	run Run
}

// step notes what is being done, and returns what is to be called at its end.
func (a *attempt) step(ctx context.Context, name string, seconds *float64) func() {
	begun := time.Now()
	a.run.Step = name
	a.s.opts.Progress.reset()
	a.s.set(func(v *view) { v.phase, v.step = "making a snapshot", name })
	now := a.run
	_ = a.s.note(ctx, func(st *State) { st.Running = &now })
	return func() { *seconds = time.Since(begun).Seconds() }
}

func (a *attempt) make(ctx context.Context, points []Point) error {
	left := a.s.leftover(points)
	if left != nil {
		a.s.log.Info("verifying the snapshot that a run before this one made", "id", left.ID)
		err := a.verify(ctx, left.ID)
		if err != nil && !errors.Is(err, snapshot.ErrCorrupt) && !discontinued(err) {
			return err
		}
		if err != nil {
			a.s.log.Warn("that snapshot is of no use: another one is made", "id", left.ID, "cause", err)
			left = nil
		}
	}
	if left == nil {
		if err := a.create(ctx); err != nil {
			return err
		}
		if err := a.verify(ctx, a.run.Snapshot); err != nil {
			return err
		}
	}
	a.prune(ctx)
	return ctx.Err()
}

// leftover is the newest snapshot, if it is young, newer than all usable ones, and not verified: a run was cut off.
func (s *Scheduler) leftover(points []Point) *Point {
	if len(points) == 0 || s.opts.Force {
		return nil
	}
	p := &points[len(points)-1]
	if p.Usable || p.Broken != nil || s.damaged[p.ID] || time.Since(p.Taken) > s.opts.Interval {
		return nil
	}
	return p
}

func (a *attempt) create(ctx context.Context) error {
	end := a.step(ctx, "prepare", &a.run.Prepare)
	if own, ok := a.s.opts.Source.(*ownReplica); ok {
		own.told(a.s.get().measured)
	}
	datadir, release, err := a.s.opts.Source.Prepare(ctx)
	end()
	if err != nil {
		return err
	}
	defer release()
	defer a.step(ctx, "create", &a.run.Create)()
	made, err := a.s.opts.Backend.Create(ctx, datadir)
	if errors.Is(err, snapshot.ErrFull) && ctx.Err() == nil {
		// The next try may find space.
		a.prune(ctx)
		a.run.Step = "create"
	}
	if err != nil {
		return err
	}
	a.run.Snapshot, a.run.Moved = made.ID, made.Moved
	a.s.log.Info("a snapshot was made", "id", made.ID, "block", made.Head.Number, "moved", made.Moved)
	return nil
}

func (a *attempt) verify(ctx context.Context, id string) error {
	defer a.step(ctx, "verify", &a.run.Verify)()
	a.run.Snapshot = id
	err := a.s.opts.Backend.Verify(ctx, id)
	if errors.Is(err, snapshot.ErrCorrupt) {
		a.s.damaged[id] = true
	}
	return err
}

// prune never makes a run fail: the snapshot is usable.
func (a *attempt) prune(ctx context.Context) {
	defer a.step(ctx, "prune", &a.run.Prune)()
	err := a.s.prune(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		a.s.log.Error("pruning failed", "cause", err)
	}
	a.s.set(func(v *view) { v.unpruned = err })
}

// prune removes nothing while headroom is short.
func (s *Scheduler) prune(ctx context.Context) error {
	points, err := s.list(ctx)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	m, err := Measure(asking, s.opts.Topic, points, time.Now)
	if err != nil {
		return err
	}
	switch {
	case m.Condition == None:
		return nil // there is nothing to choose from
	case m.short(s.limits(&m).critical):
		return fmt.Errorf("%w: nothing is removed while headroom is short (%s)", snapshot.ErrHeadroom, m.describe())
	}
	done, err := s.opts.Backend.Prune(ctx, m.First)
	if err == nil && done.Snapshots > 0 {
		s.log.Info("pruned", "snapshots", done.Snapshots, "bytes", done.Bytes)
	}
	return err
}

package schedule

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// adjust raises the topic's retention while headroom is short, and puts it back when a newer snapshot is usable. The error is
// why headroom stays short, or the retention raised.
//
// The original is noted before the retention is set, so that a run killed in between forgets nothing: a note without its
// setting does no harm.
func (s *Scheduler) adjust(ctx context.Context, m *Measured) error {
	e, foreign := s.extension(ctx, m)
	if foreign {
		s.log.Warn("somebody else set the topic's retention: it is left alone, and not put back", "retention", m.Setting.Time, "original", e.Original)
		if err := s.noteExtension(ctx, nil); err != nil {
			return err
		}
		e = nil
	}
	l, leading := s.limits(m), s.get().leading
	switch {
	case m.Condition != Bounded:
		return nil
	case leading && s.strange > 0 && e != nil: // who set it turns out at the next look
		return nil
	case leading && e != nil && m.Newest.ID != e.Newest && e.Original.d()-m.Age > max(l.extend, min(l.warn, e.Original.d()/2)):
		return s.putBack(ctx, m, e)
	case s.opts.ExtendRetention && m.Left < l.extend:
		return s.extend(ctx, m, e, l)
	}
	return nil
}

// extension returns what is noted, and whether somebody else has set the retention since. That is believed after some looks
// only: two schedulers may have raised it while no store could be written, and not told each other yet.
func (s *Scheduler) extension(ctx context.Context, m *Measured) (e *Extension, foreign bool) {
	if e = s.notes.get().Extension; e == nil || e.ours(m.Setting.Time) {
		s.strange = 0
		return e, false
	}
	if err := s.notes.load(ctx); err != nil || !s.get().leading {
		return s.notes.get().Extension, false
	}
	if e = s.notes.get().Extension; e == nil || e.ours(m.Setting.Time) {
		return e, false
	}
	s.strange++
	return e, s.strange >= badChecks
}

// ours tells whether the topic's retention is what a scheduler made it.
func (e *Extension) ours(now time.Duration) bool {
	return now == e.Original.d() || slices.Contains(e.Steps, Duration(now))
}

func (s *Scheduler) extend(ctx context.Context, m *Measured, e *Extension, l limits) error {
	now := m.Setting.Time
	if m.BySize {
		return fmt.Errorf("retention.bytes (%d) takes frames before retention.ms (%v) does: raise it", m.Setting.Bytes, now)
	}
	// Whole seconds: people read it.
	target := min((m.Age+l.step).Truncate(time.Second)+time.Second, s.opts.MaxRetention)
	if target <= now {
		return fmt.Errorf("it is %v already, and may be at most %v (--max-retention)", now, s.opts.MaxRetention)
	}
	next := &Extension{Original: Duration(now), Since: time.Now().UTC(), Newest: m.Newest.ID}
	if e != nil {
		next = &Extension{Original: e.Original, Since: e.Since, Newest: m.Newest.ID, Steps: slices.Clone(e.Steps)}
	}
	if !slices.Contains(next.Steps, Duration(target)) {
		next.Steps = append(next.Steps, Duration(target))
	}
	if err := s.noteExtension(ctx, next); err != nil && ctx.Err() == nil {
		// Rather a retention that stays raised than frames that are gone.
		s.log.Error("the topic's original retention could not be noted: if this process dies, put it back by hand", "original", next.Original, "cause", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.setRetention(ctx, target); err != nil {
		return err
	}
	s.log.Warn("raised the topic's retention: the newest usable snapshot was about to be lost",
		"snapshot", m.Newest.ID, "headroom", short(m.Left), "from", now, "to", target, "original", next.Original)
	m.Left, m.Retention, m.Setting.Time = m.Left+target-now, target, target
	return nil
}

func (s *Scheduler) putBack(ctx context.Context, m *Measured, e *Extension) error {
	if m.Setting.Time != e.Original.d() {
		if err := s.setRetention(ctx, e.Original.d()); err != nil {
			return fmt.Errorf("raised to %v it stays, it was %v: %w", m.Setting.Time, e.Original, err)
		}
	}
	s.log.Info("put the topic's retention back: a newer snapshot is usable", "snapshot", m.Newest.ID, "from", m.Setting.Time, "to", e.Original)
	if !m.BySize {
		m.Retention = e.Original.d()
		m.Left = max(0, e.Original.d()-m.Age)
	}
	m.Setting.Time = e.Original.d()
	return s.noteExtension(ctx, nil)
}

// setRetention does not wait for brokers that are away: the next look tries again.
func (s *Scheduler) setRetention(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return s.opts.Topic.SetRetention(ctx, d)
}

func (s *Scheduler) noteExtension(ctx context.Context, e *Extension) error {
	return s.note(ctx, func(st *State) {
		if e == nil {
			st.Extension = nil
			return
		}
		next := *e
		// Two schedulers without a store to write to may both have raised it: the lower original is the true one, and the
		// other's is a step.
		if now := st.Extension; now != nil {
			next.Original = min(now.Original, e.Original)
			next.Steps = slices.Concat(now.Steps, e.Steps)
			if other := max(now.Original, e.Original); other > next.Original {
				next.Steps = append(next.Steps, other)
			}
			slices.Sort(next.Steps)
			next.Steps = slices.Compact(next.Steps)
		}
		st.Extension = &next
	})
}

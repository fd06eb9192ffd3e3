// Package retention is the arithmetic of drover ops retention: whether a cluster's snapshots are made often enough for what
// Kafka retains, and how many of them may fail before a new replica cannot start.
package retention

import (
	"errors"
	"fmt"
	"time"
)

// Figures are what the arithmetic starts from, given or measured (Measured). Only Interval and Making are needed.
type Figures struct {
	// Retention is how long a frame stays on the topic (retention.ms); 0 = for ever, if Bytes does not take it sooner.
	Retention time.Duration
	// Bytes is retention.bytes, which holds for what the topic grows by at Rate (bytes a second, compressed); 0 = no limit.
	Bytes int64
	Rate  float64
	// BySize says that Retention was measured on a topic whose frames retention.bytes takes.
	BySize bool
	// Interval is the time from the start of one snapshot to the start of the next.
	Interval time.Duration
	// Making is the time from the position of a snapshot being read until it is usable: create and verify.
	Making time.Duration
	// Run is the whole of it, with bringing the source up to date before and pruning after; default Making.
	Run time.Duration
	// Restore is the time that a new replica needs to bring the snapshot back, during which Kafka goes on dropping; default Making.
	Restore time.Duration
	// Tolerate is the number of failures in a row that there should be room for; default 3.
	Tolerate int
	// Now is what was seen of a cluster; nil for given figures.
	Now *Now
}

// ErrFigures means: the figures make no sense (exit code 2).
var ErrFigures = errors.New("the figures make no sense")

// Verdict is the arithmetic's outcome in a word.
type Verdict string

// Verdicts.
const (
	Enough Verdict = "enough" // failures may be missed as told by Tolerate, or more
	Tight  Verdict = "tight"  // fewer
	Short  Verdict = "short"  // without any failure, a new replica cannot be started at times
	Lost   Verdict = "lost"   // now, no snapshot is usable and continued by the topic
)

// Plan is what follows from Figures.
type Plan struct {
	Verdict Verdict
	Figures // with the defaults filled in
	// Effective is how long frames stay, by time or by size; 0 = for ever.
	Effective time.Duration
	// Spacing is the time between two usable snapshots: Interval, or Run where that takes longer.
	Spacing time.Duration
	// Oldest is the age to which the newest usable snapshot gets when nothing fails, just before the next one is usable.
	Oldest time.Duration
	// Misses is the number of snapshots in a row that may fail, one in each Interval; -1 = not even all successes are enough;
	// Unlimited when frames stay for ever.
	Misses int
	// NeedsRetention is what would be room for Tolerate failures at this Interval.
	NeedsRetention time.Duration
	// Recommended is the longest round interval with room for Tolerate failures at this retention; 0 = there is none, raise the
	// retention to NeedsRetention.
	Recommended time.Duration
	// Ahead is what follows for a cluster from where it stands now; nil without Figures.Now.
	Ahead *Ahead
}

// Unlimited is Misses when the topic keeps frames for ever.
const Unlimited = 1 << 30

// Compute does the arithmetic. ErrFigures.
//
// A replica that starts from a snapshot reads first what came right after its position, so that frame has to stay until the
// restore is done. After n failures in a row the newest usable snapshot gets (n+1)·Spacing + Making old, which together with
// Restore must not be more than the retention.
func Compute(f Figures) (Plan, error) {
	if err := f.fill(); err != nil {
		return Plan{}, err
	}
	p := Plan{Figures: f, Effective: f.Retention, Spacing: max(f.Interval, f.Run)}
	if f.Bytes > 0 && f.Rate > 0 {
		if bySize := seconds(float64(f.Bytes) / f.Rate); p.Effective == 0 || bySize < p.Effective {
			p.Effective, p.BySize = bySize, true
		}
	}
	p.Oldest = p.Spacing + f.Making
	p.NeedsRetention = time.Duration(f.Tolerate+1)*p.Spacing + f.Making + f.Restore
	p.Misses = misses(p.Effective, p.Spacing, f.Making+f.Restore)
	p.Recommended = recommend(p.Effective, f)
	switch {
	case p.Misses < 0:
		p.Verdict = Short
	case p.Misses < f.Tolerate:
		p.Verdict = Tight
	default:
		p.Verdict = Enough
	}
	if f.Now != nil {
		p.Ahead = ahead(f, p.Spacing)
		if f.Now.Lost != "" {
			p.Verdict = Lost
		}
	}
	return p, nil
}

func (f *Figures) fill() error {
	for _, d := range []time.Duration{f.Restore, f.Run, f.Making} {
		if d < 0 || d > maxSpan {
			return fmt.Errorf("%w: a snapshot is made or restored in %v: from 0 to a year", ErrFigures, d)
		}
	}
	switch {
	case f.Retention < 0:
		return fmt.Errorf("%w: a retention of %v: 0 is for ever", ErrFigures, f.Retention)
	case f.Interval <= 0 || f.Interval > maxSpan:
		return fmt.Errorf("%w: an interval between snapshots is needed, for example 6h, not %v", ErrFigures, f.Interval)
	case f.Bytes < 0 || f.Rate < 0:
		return fmt.Errorf("%w: bytes and rate cannot be below zero", ErrFigures)
	case f.Bytes > 0 && f.Rate == 0 && f.Now == nil:
		return fmt.Errorf("%w: how long %d bytes last depends on the rate at which the topic grows: give it", ErrFigures, f.Bytes)
	case f.Tolerate < 0 || f.Tolerate > 100:
		return fmt.Errorf("%w: room for %d failures: from 0 to 100", ErrFigures, f.Tolerate)
	}
	if f.Tolerate == 0 {
		f.Tolerate = 3
	}
	f.Run = max(f.Run, f.Making)
	if f.Restore == 0 {
		f.Restore = f.Making
	}
	return nil
}

// maxSpan is a year: a hundred of it are within a time.Duration.
const maxSpan = 366 * 24 * time.Hour

// seconds is at most a hundred years.
func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), 100*float64(maxSpan)))
}

// misses is the largest n with (n+1)·spacing + fixed <= retention.
func misses(retention, spacing, fixed time.Duration) int {
	switch {
	case retention == 0:
		return Unlimited
	case retention < spacing+fixed:
		return -1
	}
	return int((retention-fixed)/spacing) - 1
}

// rounds are the intervals that people choose.
var rounds = []time.Duration{
	7 * 24 * time.Hour, 3 * 24 * time.Hour, 2 * 24 * time.Hour, 24 * time.Hour, 12 * time.Hour, 8 * time.Hour, 6 * time.Hour, 4 * time.Hour,
	3 * time.Hour, 2 * time.Hour, time.Hour, 30 * time.Minute, 20 * time.Minute, 15 * time.Minute, 10 * time.Minute, 5 * time.Minute, 2 * time.Minute,
	time.Minute, 30 * time.Second, 10 * time.Second, 5 * time.Second, time.Second,
}

func recommend(retention time.Duration, f Figures) time.Duration {
	for _, interval := range rounds {
		if interval >= f.Run && misses(retention, interval, f.Making+f.Restore) >= f.Tolerate {
			return interval
		}
	}
	return 0
}

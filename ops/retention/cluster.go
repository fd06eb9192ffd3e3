package retention

import (
	"slices"
	"time"

	"github.com/drover-io/drover/snapshot/schedule"
)

// Now is what was seen of a cluster.
type Now struct {
	At time.Time
	// Newest usable snapshot, and when its position was taken; "" = there is none.
	Newest string
	Taken  time.Time
	// Left is the headroom: the time until Kafka may drop what a replica started from Newest reads first. Unlimited: it never will.
	Left      time.Duration
	Unlimited bool
	// Lost says why no replica can be started from a snapshot; "" = one can.
	Lost string
	// FirstAge is the age of the first frame that the topic has; 0 = there is none.
	FirstAge time.Duration
	// Snapshots in the store, usable or not.
	Snapshots int
	// Runs are the last ones, the oldest first. Failures is how many failed since the last good one.
	Runs     []schedule.Run
	Failures int
	// Raised is what the topic's retention was before the scheduler raised it, while snapshots failed; 0 = it was not raised.
	Raised time.Duration
}

// Ahead is what follows from where a cluster stands.
type Ahead struct {
	// Next is when the next snapshot is due to begin.
	Next time.Time
	// LastStart is when one has to begin at the latest, so that it is usable before Deadline; Deadline is when a new replica has
	// to begin to restore Newest at the latest. Both are zero when the topic keeps frames for ever, or all is lost.
	LastStart time.Time
	Deadline  time.Time
	// Misses is the number of snapshots from the next one on that may fail; -1 = the next one comes too late already.
	Misses int
}

// Observed says where the figures of Measured come from.
type Observed struct {
	Measured schedule.Measured
	State    schedule.State
	Points   []schedule.Point // the store's snapshots, the oldest first
	FirstAt  time.Time        // time of the topic's first frame; zero = there is none
	// Interval as the scheduler has it; 0 = the usual time between the starts of the last runs, or between snapshots.
	Interval time.Duration
}

// lastRuns is the number of good runs that durations are taken from.
const lastRuns = 10

// Measured makes Figures of what was seen of a cluster. What the caller knows better (Restore, Making where no scheduler has
// run, Tolerate) it sets in the result. Interval and Making are 0 where nothing tells them.
func Measured(o Observed) Figures {
	m := o.Measured
	f := Figures{
		Retention: m.Setting.Time, Bytes: m.Setting.Bytes, Interval: o.Interval,
		Now: &Now{
			At: m.At, Left: m.Left, Unlimited: m.Condition == schedule.Unlimited, Snapshots: m.All, Runs: o.State.Runs, Failures: o.State.Failures,
		},
	}
	if m.BySize {
		f.Retention, f.BySize = m.Retention, true
	}
	if e := o.State.Extension; e != nil {
		// It is put back; plans are made with what stays.
		original := time.Duration(e.Original)
		f.Now.Raised = original
		if !f.BySize || original < f.Retention {
			f.Retention, f.BySize = original, false
		}
	}
	if m.Newest != nil {
		f.Now.Newest, f.Now.Taken = m.Newest.ID, m.Newest.Taken
	}
	if m.Condition == schedule.Lost || m.Condition == schedule.None {
		f.Now.Lost = m.Reason
	}
	if !o.FirstAt.IsZero() {
		f.Now.FirstAge = max(0, m.At.Sub(o.FirstAt))
	}
	for _, r := range good(o.State.Runs) {
		f.Making = max(f.Making, seconds(r.Create+r.Verify))
		f.Run = max(f.Run, r.Duration())
	}
	if f.Interval == 0 {
		f.Interval = usual(o)
	}
	return f
}

// good are the last runs that made a usable snapshot.
func good(runs []schedule.Run) []schedule.Run {
	var all []schedule.Run
	for _, r := range runs {
		if r.Outcome == schedule.Succeeded {
			all = append(all, r)
		}
	}
	return all[max(0, len(all)-lastRuns):]
}

// usual is the median time between the starts of good runs, or between snapshots where no scheduler has run.
func usual(o Observed) time.Duration {
	var starts []time.Time
	for _, r := range good(o.State.Runs) {
		starts = append(starts, r.Started)
	}
	if len(starts) < 2 {
		starts = nil
		for _, p := range o.Points {
			starts = append(starts, p.Taken)
		}
	}
	var gaps []time.Duration
	for i := 1; i < len(starts); i++ {
		if gap := starts[i].Sub(starts[i-1]); gap > 0 {
			gaps = append(gaps, gap)
		}
	}
	return median(gaps)
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func ahead(f Figures, spacing time.Duration) *Ahead {
	now := f.Now
	a := &Ahead{Next: now.At}
	if n := len(now.Runs); n > 0 {
		if next := now.Runs[n-1].Started.Add(f.Interval); next.After(now.At) {
			a.Next = next
		}
	} else if next := now.Taken.Add(f.Interval); next.After(now.At) {
		a.Next = next
	}
	switch {
	case now.Lost != "":
		a.Misses = -1
		return a
	case now.Unlimited:
		a.Misses = Unlimited
		return a
	}
	a.Deadline = now.At.Add(now.Left - f.Restore)
	a.LastStart = a.Deadline.Add(-f.Run)
	if slack := a.LastStart.Sub(a.Next); slack >= 0 {
		a.Misses = int(slack / spacing)
	} else {
		a.Misses = -1
	}
	return a
}

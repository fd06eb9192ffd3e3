package master

import (
	"fmt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// action is what a Master does before it captures.
type action int

const (
	goOn     action = iota // behind what it published last
	initial                // opens a topic without frames
	takeover               // a copy becomes the source of a new timeline, at the topic's end
	recovery               // the source itself lost what it had published: as a takeover, from its own disk
	rebase                 // a new timeline at the database's own sequence, that no older database can join
)

// ask is what the operator asked for.
type ask int

const (
	askNothing ask = iota
	askTakeover
	askRebase
)

// plan is where a Master goes on: behind sequence last of the timeline, after writing start if that is set. For a
// takeover and a recovery all of this is known only after the replay.
type plan struct {
	action   action
	timeline uint64
	last     uint64
	start    *changelog.TimelineStart
	genesis  string // as far as the topic says
}

// source is what is known of the database before anything is written.
type source struct {
	marker   *chaindata.Marker // nil: none
	copied   bool              // the directory was copied together with its marker
	sequence uint64            // its current sequence, 0 when there is no database yet
	live     bool              // a geth that is not ours has it open, so that sequence is already the past
}

func (s *source) is(role string) bool { return s.marker != nil && s.marker.Role == role && !s.copied }

// decide says where to go on, or why this database must not write to this change log.
func decide(cluster string, tail changelog.Tail, src source, asked ask) (plan, error) {
	m := src.marker
	if m != nil && m.Cluster != cluster {
		return plan{}, fmt.Errorf("%w: %s in the database's directory says cluster %q, this is cluster %q: "+
			"give the right --cluster or --datadir", ErrNotOurs, chaindata.MarkerName, m.Cluster, cluster)
	}
	switch {
	case asked == askRebase && m != nil:
		return decideRebase(cluster, tail, src), nil
	case tail.Empty && (m == nil || src.is(chaindata.RoleSource)):
		return decideEmpty(cluster, src), nil
	case src.is(chaindata.RoleSource):
		return decideSource(tail, src)
	case src.is(chaindata.RoleRecovering):
		return decideRecovering(tail, src)
	case asked == askTakeover:
		return plan{action: takeover, genesis: tail.Genesis()}, nil
	case m == nil:
		return plan{}, fmt.Errorf("%w: cluster %q has frames up to timeline %d sequence %d already, and this database was never its source: "+
			"use another cluster name, or start from a snapshot of this cluster with --takeover", ErrNotOurs, cluster, tail.Timeline, tail.Sequence)
	}
	return plan{}, fmt.Errorf("%w: it is a copy (a snapshot or a replica's) on timeline %d: "+
		"a copy becomes the source by --takeover only", ErrNotOurs, m.Timeline)
}

func decideSource(tail changelog.Tail, src source) (plan, error) {
	m := src.marker
	switch {
	case m.Timeline < tail.Timeline:
		return plan{}, fmt.Errorf("%w: this database is the source of timeline %d, the change log is at timeline %d: "+
			"start this node anew from a snapshot", changelog.ErrFenced, m.Timeline, tail.Timeline)
	case m.Timeline > tail.Timeline:
		return plan{}, fmt.Errorf("%w: it is the source of timeline %d, the change log is at timeline %d only: "+
			"the topic was cut off or restored from an older state", ErrNotOurs, m.Timeline, tail.Timeline)
	case !src.live && src.sequence < tail.Sequence:
		return plan{action: recovery, genesis: tail.Genesis()}, nil
	}
	return plan{timeline: tail.Timeline, last: tail.Sequence, genesis: tail.Genesis()}, nil
}

// decideRecovering goes on with a recovery that was cut short.
func decideRecovering(tail changelog.Tail, src source) (plan, error) {
	m := src.marker
	if tail.Empty || m.Timeline == tail.Timeline {
		return plan{action: recovery, genesis: tail.Genesis()}, nil
	}
	// The marker holds the base that the start frame was to have: the frame is ours, and nothing was written behind it.
	if st := tail.Start; st != nil && st.PreviousTimeline == m.Timeline && st.Reason == changelog.ReasonTakeover &&
		st.Base == m.Sequence && tail.Sequence == st.Base && src.sequence == st.Base {
		return plan{timeline: tail.Timeline, last: tail.Sequence, genesis: tail.Genesis()}, nil
	}
	return plan{}, fmt.Errorf("%w: this database was the source of timeline %d and lost writes, the change log is at timeline %d by now: "+
		"it can be a replica of it, or the source by --takeover", changelog.ErrFenced, m.Timeline, tail.Timeline)
}

// decideEmpty opens a topic without frames. A database that was a source before keeps its timeline's number: sequences
// of one database are comparable, so a replica that has all of them may join, and one that has less sees a hole.
func decideEmpty(cluster string, src source) plan {
	p := plan{action: initial, timeline: 1, last: src.sequence}
	if src.marker != nil {
		p.timeline = src.marker.Timeline
	}
	p.start = &changelog.TimelineStart{Cluster: cluster, Reason: changelog.ReasonInitial, Base: p.last}
	return p
}

func decideRebase(cluster string, tail changelog.Tail, src source) plan {
	p := plan{
		action: rebase, timeline: max(tail.Newest, tail.Timeline, src.marker.Timeline) + 1, last: src.sequence, genesis: tail.Genesis(),
	}
	p.start = &changelog.TimelineStart{
		Cluster: cluster, Genesis: p.genesis, Reason: changelog.ReasonRebase, Base: p.last,
		PreviousTimeline: max(tail.Timeline, src.marker.Timeline), PreviousSequence: tail.Sequence, Offset: tail.Next,
	}
	return p
}

package master

import (
	"fmt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// plan is where a Master goes on: behind sequence last of the timeline, after writing start if that is set.
type plan struct {
	timeline uint64
	last     uint64
	start    *changelog.TimelineStart
	genesis  string // as far as the topic says
}

// source is what is known of the database before anything is written.
type source struct {
	marker   *chaindata.Marker // nil: none
	sequence uint64            // its current sequence, 0 when there is no database yet
	live     bool              // a geth that is not ours has it open, so that sequence is already the past
}

// decide says where to go on, or why this database must not write to this change log. A takeover (another timeline's
// database becomes the source) and a rebase are decided beside this.
func decide(cluster string, tail changelog.Tail, src source) (plan, error) {
	if m := src.marker; m != nil {
		switch {
		case m.Cluster != cluster:
			return plan{}, fmt.Errorf("%w: %s in the database's directory says cluster %q, this is cluster %q: "+
				"give the right --cluster or --datadir", ErrNotOurs, chaindata.MarkerName, m.Cluster, cluster)
		case m.Role != chaindata.RoleSource:
			return plan{}, fmt.Errorf("%w: it is a copy (a snapshot or a replica's) on timeline %d: "+
				"a copy becomes the source by --takeover only", ErrNotOurs, m.Timeline)
		}
	}
	if tail.Empty {
		return decideEmpty(cluster, src), nil
	}
	switch m := src.marker; {
	case m == nil:
		return plan{}, fmt.Errorf("%w: cluster %q has frames up to timeline %d sequence %d already, and this database was never its source: "+
			"use another cluster name, or start from a snapshot of this cluster with --takeover", ErrNotOurs, cluster, tail.Timeline, tail.Sequence)
	case m.Timeline < tail.Timeline:
		return plan{}, fmt.Errorf("%w: this database is the source of timeline %d, the change log is at timeline %d: "+
			"start this node anew from a snapshot", changelog.ErrFenced, m.Timeline, tail.Timeline)
	case m.Timeline > tail.Timeline:
		return plan{}, fmt.Errorf("%w: it is the source of timeline %d, the change log is at timeline %d only: "+
			"the topic was cut off or restored from an older state", ErrNotOurs, m.Timeline, tail.Timeline)
	case !src.live && src.sequence < tail.Sequence:
		return plan{}, fmt.Errorf("%w: it ends at sequence %d, the change log at %d (the machine lost power, or an older disk was put in): "+
			"start this node from a snapshot", chaindata.ErrBehind, src.sequence, tail.Sequence)
	}
	return plan{timeline: tail.Timeline, last: tail.Sequence, genesis: tail.Genesis()}, nil
}

// decideEmpty opens a topic without frames. A database that was a source before keeps its timeline's number: sequences
// of one database are comparable, so a replica that has all of them may join, and one that has less sees a hole.
func decideEmpty(cluster string, src source) plan {
	p := plan{timeline: 1, last: src.sequence}
	if src.marker != nil {
		p.timeline = src.marker.Timeline
	}
	p.start = &changelog.TimelineStart{Cluster: cluster, Reason: changelog.ReasonInitial, Base: p.last}
	return p
}

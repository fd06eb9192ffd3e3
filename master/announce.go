package master

import (
	"fmt"
	"strings"
)

// announce says in a few lines what the plan does and what it costs, before anything is written.
func (m *Master) announce(found survey) string {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-14s %s\n", label, fmt.Sprintf(format, args...))
	}
	tail, src := found.tail, found.source
	next := max(tail.Newest, tail.Timeline) + 1
	if found.plan.timeline != 0 {
		next = found.plan.timeline
	}
	fmt.Fprintf(&b, "cluster %s, database %s\n", m.opts.Cluster, m.opts.Chaindata)
	if tail.Empty {
		line("change log", "empty")
	} else {
		line("change log", "timeline %d, ends at sequence %d (offset %d)", tail.Timeline, tail.Sequence, tail.Next-1)
	}
	if src.marker == nil {
		line("database", "own sequence %d, never captured", src.sequence)
	} else {
		line("database", "own sequence %d, %s on timeline %d", src.sequence, src.describe(), src.marker.Timeline)
	}
	switch found.plan.action {
	case goOn:
		line("plan", "go on with timeline %d behind sequence %d; no new timeline is needed", found.plan.timeline, found.plan.last)
	case initial:
		line("plan", "open timeline %d at base %d", found.plan.timeline, found.plan.last)
	case takeover, recovery:
		line("plan", "replay the change log to its end, then open timeline %d from there", next)
		line("base", "this database's own sequence, %d or more after the replay", src.sequence)
		line("replicas", "those on timeline %d go on without a new snapshot, when they get to the same end", tail.Timeline)
		if found.plan.action == takeover {
			line("cost", "the master of timeline %d, if it lives, stops its geth (exit code 4); what it has not published is given up,", tail.Timeline)
			line("", "and its datadir has to be made anew from a snapshot")
		} else {
			line("cost", "none beyond the replay: the database lost sequences %d to %d, which the change log holds", src.sequence+1, tail.Sequence)
		}
	case rebase:
		line("plan", "open timeline %d at base %d, this database's own sequence", found.plan.timeline, found.plan.last)
		line("replicas", "none can join: all of older timelines stop (exit code 5) and need a snapshot of timeline %d", found.plan.timeline)
		line("cost", "snapshots of older timelines are of no use any more; make a new one at once")
	}
	return b.String()
}

func (s *source) describe() string {
	if s.copied {
		return "a copy of the " + s.marker.Role
	}
	return s.marker.Role
}

package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// takeoverRounds bounds how often a takeover starts over because the old master wrote in between. Its first attempt
// already fences that master, so a second one finds the end standing still.
const takeoverRounds = 10

// errPassed: the log went on between the replay and the start frame, which is void therefore.
var errPassed = errors.New("another master's frames came before the start frame")

// step names a moment of a takeover for the tests that kill it there.
func (m *Master) step(name string) {
	if m.opts.at != nil {
		m.opts.at(name)
	}
}

// takeOver makes the database the source of a new timeline: listen, replay, start frame, marker. DESIGN.md says why in
// this order, and what is left behind at each step. The database's lock is lent to the replay.
func (m *Master) takeOver(ctx context.Context, log *changelog.Log, found survey, unlock *func()) (*session, error) {
	p := &promotion{began: time.Now(), head: headOf(found.tail)}
	if err := m.listen(ctx, log, found); err != nil {
		return nil, err
	}
	p.listened = time.Now()
	if err := m.prepareReplay(found); err != nil {
		return nil, err
	}
	m.step("prepared")
	newest := found.tail.Newest
	for round := 1; ; round++ {
		m.setPhase(phaseReplaying)
		at, err := m.replay(ctx, unlock)
		if err != nil {
			return nil, err
		}
		if !found.tail.Empty && at.Timeline != found.tail.Timeline {
			return nil, tookOverFirst(at.Timeline)
		}
		p.replayed = time.Now()
		m.step("replayed")
		base, err := m.settle(found, at)
		if err != nil {
			return nil, err
		}
		next := plan{action: found.plan.action, timeline: max(newest, at.Timeline) + 1, last: base, genesis: found.plan.genesis}
		next.start = &changelog.TimelineStart{
			Cluster: m.opts.Cluster, Genesis: next.genesis, Reason: changelog.ReasonTakeover,
			PreviousTimeline: at.Timeline, PreviousSequence: at.Sequence, Base: base, Offset: at.Offset + 1,
		}
		m.step("settled")
		publisher, err := m.begin(ctx, log, at, next)
		if errors.Is(err, errPassed) && round < takeoverRounds {
			m.log.Warn("the old master wrote while this one took over: replaying that too", "round", round)
			newest = next.timeline
			continue
		}
		if err != nil {
			return nil, err
		}
		m.step("started")
		if err := m.mark(next.timeline); err != nil {
			return nil, err
		}
		m.step("marked")
		p.opened = time.Now()
		m.log.Info("new timeline", "timeline", next.timeline, "base", base, "reason", next.start.Reason, "behind", at.String())
		next.start = nil
		m.setGenesis(next.genesis)
		s := m.openSession(ctx, publisher, next)
		s.promotion = p
		return s, nil
	}
}

func tookOverFirst(timeline uint64) error {
	return fmt.Errorf("%w: another node took over first, the change log is at timeline %d: this database is a copy as before, "+
		"run a replica on it", changelog.ErrFenced, timeline)
}

// reBase opens the plan's timeline at the database's own sequence.
func (m *Master) reBase(ctx context.Context, log *changelog.Log, found survey) (*session, error) {
	next := found.plan
	tail := found.tail
	for round := 1; ; round++ {
		at := changelog.Position{Cluster: m.opts.Cluster, Timeline: tail.Timeline, Sequence: tail.Sequence, Offset: tail.Next - 1}
		publisher, err := m.begin(ctx, log, at, next)
		if errors.Is(err, errPassed) && round < takeoverRounds {
			if tail, err = log.Tail(ctx); err != nil {
				return nil, err
			}
			start := *next.start
			start.PreviousTimeline, start.PreviousSequence, start.Offset = tail.Timeline, tail.Sequence, tail.Next
			next.timeline, next.start = max(tail.Newest, next.timeline)+1, &start
			continue
		}
		if err != nil {
			return nil, err
		}
		m.step("started")
		if err := m.mark(next.timeline); err != nil {
			return nil, err
		}
		m.log.Info("new timeline", "timeline", next.timeline, "base", next.last, "reason", next.start.Reason)
		next.start = nil
		m.setGenesis(next.genesis)
		return m.openSession(ctx, publisher, next), nil
	}
}

// listen watches the topic for the old master. It is information, not safety: what fences the old master is the start
// frame. Only a recovery, which nobody asked for, ends when that master is alive.
func (m *Master) listen(ctx context.Context, log *changelog.Log, found survey) error {
	tail, window := found.tail, m.opts.TakeoverWindow
	interval := m.opts.HeartbeatInterval
	if tail.Heartbeat != nil && tail.Heartbeat.Interval > 0 {
		interval = tail.Heartbeat.Interval
	}
	if window == 0 {
		window = 3 * interval
	}
	if tail.Empty || window < 0 || tail.Heartbeat != nil && tail.Heartbeat.Stopping {
		return nil
	}
	m.setPhase(phaseListening)
	m.log.Info("listening for the old master", "timeline", tail.Timeline, "for", window)
	limited, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	reader := log.NewReader(tail.Next)
	defer reader.Close()
	for {
		entry, err := reader.Next(limited)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case limited.Err() != nil:
			return nil
		case err != nil:
			return err
		case entry.Err != nil || entry.Frame.Timeline < tail.Timeline:
			continue
		case entry.Frame.Timeline > tail.Timeline:
			return tookOverFirst(entry.Frame.Timeline)
		}
		if h, err := entry.Frame.Heartbeat(); err == nil && h.Stopping {
			return nil
		}
		if found.plan.action == recovery {
			return fmt.Errorf("%w: it ends before what the change log holds, and another process goes on writing timeline %d: "+
				"this is a copy, use --takeover if it shall be the source", ErrNotOurs, tail.Timeline)
		}
		m.log.Warn("the old master is alive: it ends when it sees the new timeline", "timeline", tail.Timeline, "offset", entry.Offset)
		return nil
	}
}

// prepareReplay makes the database a copy in the eyes of everybody before it is written to, and forgets journals that
// were kept: their sequences are of another numbering than what is written from now on.
func (m *Master) prepareReplay(found survey) error {
	if found.plan.action == recovery && found.source.marker.Role == chaindata.RoleSource {
		m.log.Warn("the database lost writes that are on the change log: replaying them, then opening a new timeline",
			"database", found.source.sequence, "log", found.tail.Sequence)
		err := chaindata.WriteMarker(m.opts.Chaindata, chaindata.Marker{
			Cluster: m.opts.Cluster, Timeline: found.source.marker.Timeline, Role: chaindata.RoleRecovering, Sequence: found.source.sequence,
		})
		if err != nil {
			return err
		}
	}
	return clearSpool(m.opts.SpoolDir)
}

// clearSpool removes what a Follower links: journals and manifests.
func clearSpool(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST-") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// replay brings the database to the topic's end. The lock is taken again before anything is concluded from it.
func (m *Master) replay(ctx context.Context, unlock *func()) (changelog.Position, error) {
	(*unlock)()
	*unlock = func() {}
	at, err := m.opts.Replay(ctx)
	if ctx.Err() != nil {
		return at, context.Cause(ctx)
	}
	if err != nil {
		return at, fmt.Errorf("replaying the change log before the takeover: %w", err)
	}
	release, err := m.lockDatabase(ctx)
	if err != nil {
		return at, err
	}
	*unlock = release
	return at, nil
}

// settle makes the replayed database durable and returns its own sequence, the new timeline's base. Were it not durable,
// a power cut behind the start frame could take it back to before the base.
func (m *Master) settle(found survey, at changelog.Position) (uint64, error) {
	if err := syncDatabase(m.opts.Chaindata); err != nil {
		return 0, err
	}
	state, err := chaindata.Inspect(m.opts.Chaindata)
	if err != nil {
		return 0, err
	}
	if found.plan.action != recovery {
		return state.Sequence, nil
	}
	// See decideRecovering. The position is in the database by now, so that the marker's sequence has no other meaning.
	return state.Sequence, chaindata.WriteMarker(m.opts.Chaindata, chaindata.Marker{
		Cluster: m.opts.Cluster, Timeline: at.Timeline, Role: chaindata.RoleRecovering, Sequence: state.Sequence,
	})
}

// syncDatabase makes durable what goleveldb only hands to the kernel: journals above all. Tables it syncs itself.
func syncDatabase(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || strings.HasSuffix(entry.Name(), ".ldb") {
			continue
		}
		if err := syncFile(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return syncFile(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// begin writes the plan's start frame behind the position, and finds out whether it counts, by the rule that every
// reader has (changelog.TimelineStart.Missed). errPassed when it does not.
func (m *Master) begin(ctx context.Context, log *changelog.Log, at changelog.Position, next plan) (*changelog.Publisher, error) {
	ctx, cancel := m.whileStarting(ctx)
	defer cancel()
	tail, err := log.Tail(ctx)
	if err != nil {
		return nil, err
	}
	if tail.Timeline > at.Timeline && !tail.Empty {
		return nil, tookOverFirst(tail.Timeline)
	}
	options := m.opts.Publisher
	options.Tail = tail
	publisher := log.NewPublisher(options)
	m.step("beginning")
	frame := changelog.StartFrame(next.timeline, *next.start, time.Now())
	landed, err := publisher.Publish(ctx, []changelog.Frame{frame})
	if err != nil {
		return nil, err
	}
	if next.action == rebase {
		if landed != next.start.Offset && next.start.Offset != 0 {
			return nil, errPassed
		}
		return publisher, nil
	}
	return publisher, m.check(ctx, log, at, max(at.Offset+1, tail.First), landed, frame)
}

// check reads what stands between the replay's end and the start frame as a replica would.
func (m *Master) check(ctx context.Context, log *changelog.Log, at changelog.Position, from, landed int64, start changelog.Frame) error {
	reader := changelog.NewSequencer(at)
	ours := errors.New("the start frame itself, sent twice")
	err := log.ReadRange(ctx, from, landed, func(e changelog.Entry) error {
		if f := &e.Frame; f.Kind == start.Kind && f.Timeline == start.Timeline && f.BatchCRC == start.BatchCRC {
			return ours
		}
		_, err := reader.Next(e)
		return err
	})
	if err != nil && !errors.Is(err, ours) {
		return err
	}
	switch now := reader.Position(); {
	case now.Timeline != at.Timeline:
		return tookOverFirst(now.Timeline)
	case now.Sequence != at.Sequence:
		return errPassed
	}
	return nil
}

// mark says that the database is the timeline's source.
func (m *Master) mark(timeline uint64) error {
	return chaindata.WriteMarker(m.opts.Chaindata, chaindata.Marker{Cluster: m.opts.Cluster, Timeline: timeline, Role: chaindata.RoleSource})
}

// headOf is the chain's head as the old master saw it last.
func headOf(tail changelog.Tail) *changelog.BlockRef {
	if tail.Heartbeat == nil {
		return nil
	}
	return tail.Heartbeat.Head
}

package replica

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
	"github.com/syndtr/goleveldb/leveldb"
)

// catchUp applies the change log to the bare database until it is near the topic's end; with UntilSynced, until
// everything below the offset end is applied. start is where the feed begins. Groups are put together ahead, on the goroutine of gather.
func (r *Replica) catchUp(ctx context.Context, db *opened, f *feed, start, end int64) error {
	defer thrifty()()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := newGatherer(db.heads, func(it *item) bool {
		if r.opts.UntilSynced {
			// Not the position: a master that died in the middle of a batch left parts behind the last whole one.
			return it.offset+1 >= end
		}
		return max(it.event.HighWater, r.status().highWater)-(it.event.Position.Offset+1) <= r.opts.LiveFrames/2
	})
	go g.run(ctx, f)
	defer func() { cancel(); <-g.done }()
	if r.opts.UntilSynced && max(start, db.at.Offset+1) >= end {
		return nil
	}
	began, from, reported := time.Now(), db.at.Sequence, time.Now()
	for {
		var l *load
		select {
		case l = <-g.full:
		case <-ctx.Done():
			return ctx.Err()
		}
		if l.batch != nil {
			if err := r.write(ctx, l.group.at, func() error { return db.db.Write(l.batch, nil) }); err != nil {
				return err
			}
		}
		db.at, db.heads = l.group.at, l.group.heads
		for i := range l.events {
			r.applied(&item{event: l.events[i]})
		}
		if l.group.head != (common.Hash{}) {
			r.mu.Lock()
			r.state.bulkHead, r.state.bulkNum = l.group.head, l.group.number
			r.mu.Unlock()
		}
		if time.Since(reported) > 10*time.Second {
			reported = time.Now()
			r.log.Info("catching up", "position", db.at, "end", r.status().highWater, "block", r.status().bulkNum)
		}
		if l.err != nil {
			return l.err
		}
		if l.last {
			break
		}
		g.empty <- l
	}
	r.log.Info("caught up", "position", db.at, "operations", db.at.Sequence-from, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// thrifty makes Go collect garbage twice as often until the returned function is called. Memtables and groups are large
// and short-lived: at Go's default, catching up would need more memory than geth does afterwards, and containers are sized by
// the largest.
func thrifty() (restore func()) {
	const percent = 50
	before := debug.SetGCPercent(percent)
	if before < percent { // GOGC asked for less, or for none at all under a GOMEMLIMIT
		debug.SetGCPercent(before)
	}
	return func() { debug.SetGCPercent(before) }
}

// write makes one write, and tries again while the database refuses it: the position stays, and Status says why.
func (r *Replica) write(ctx context.Context, at changelog.Position, write func() error) error {
	const tries = 5
	for try, delay := 1, 100*time.Millisecond; ; try, delay = try+1, min(2*delay, 5*time.Second) {
		err := r.writeOnce(at, write)
		if err == nil {
			return nil
		}
		r.metrics.writeErrors.Inc()
		r.mu.Lock()
		r.state.applyErr = err
		r.mu.Unlock()
		r.log.Error("the database refuses a write; trying again", "err", err, "position", at, "try", try, "in", delay)
		if try == tries {
			// goleveldb's journal does not recover from a failed write by itself.
			return fmt.Errorf("%w: %d writes were refused: %w", errReopen, tries, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

func (r *Replica) writeOnce(at changelog.Position, write func() error) error {
	if r.opts.BeforeWrite != nil {
		if err := r.opts.BeforeWrite(at); err != nil {
			return err
		}
	}
	return write()
}

// settle waits until compaction has left few enough tables at level 0: geth opens the database with goleveldb's
// defaults, which slow writes down from 8 tables on and stop them at 12.
func (r *Replica) settle(ctx context.Context, db *leveldb.DB) error {
	const enough = 8
	for logged := false; ; logged = true {
		value, err := db.GetProperty("leveldb.num-files-at-level0")
		if err != nil {
			return fmt.Errorf("tables at level 0: %w", err)
		}
		if n, err := strconv.Atoi(value); err != nil || n < enough {
			return err
		}
		if !logged {
			r.log.Info("compacting before geth is opened", "tables", value)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// load is a group ready to be written, with the events in it.
type load struct {
	group  group
	batch  *leveldb.Batch    // nil when there is nothing to write
	events []changelog.Event // the last one, and heartbeats
	last   bool
	err    error // the feed's end, behind the group
}

// gatherer turns the feed into loads. Two loads go around: one is filled while the other is written.
type gatherer struct {
	full  chan *load
	empty chan *load
	done  chan struct{}
	heads heads
	stop  func(*item) bool
}

func newGatherer(h heads, stop func(*item) bool) *gatherer {
	g := &gatherer{full: make(chan *load), empty: make(chan *load, 2), done: make(chan struct{}), heads: h, stop: stop}
	g.empty <- new(load)
	g.empty <- new(load)
	return g
}

// run ends after the load that stop names, without having taken anything behind it from the feed.
func (g *gatherer) run(ctx context.Context, f *feed) {
	defer close(g.done)
	for {
		var l *load
		select {
		case l = <-g.empty:
		case <-ctx.Done():
			return
		}
		l.group.reset()
		l.events, l.batch, l.last, l.err = l.events[:0], nil, false, nil
		l.group.heads = g.heads
		if !g.fill(ctx, f, l) {
			return
		}
		g.heads = l.group.heads
		if l.group.any {
			batch, err := l.group.batch()
			if l.batch = batch; err != nil {
				l.err = err
			}
		}
		select {
		case g.full <- l:
		case <-ctx.Done():
			return
		}
		if l.last || l.err != nil {
			return
		}
	}
}

func (g *gatherer) fill(ctx context.Context, f *feed, l *load) bool {
	var last changelog.Event
	for len(l.group.ops) < bulkGroup {
		var it item
		if !l.group.any {
			select {
			case it = <-f.items:
			case <-ctx.Done():
				return false
			}
		} else {
			select {
			case it = <-f.items:
			default: // what is here is written rather than waiting for more
				l.events = append(l.events, last)
				return true
			}
		}
		if it.err != nil {
			l.err = it.err
			break
		}
		last = it.event
		if last.Kind == changelog.EventHeartbeat {
			l.events = append(l.events, last)
		}
		l.group.add(&it.change, last.Position)
		if g.stop(&it) {
			l.last = true
			break
		}
	}
	if l.group.any {
		l.events = append(l.events, last)
	}
	return true
}

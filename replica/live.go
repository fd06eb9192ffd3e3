package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/ethdb"
)

const (
	// positionEvery is how often the position is stored while nothing but heartbeats comes, so that an idle chain's
	// stored offset does not age out of the topic.
	positionEvery = 30 * time.Second
	// fallBehind is how many frames behind the topic's end the database is taken away from geth again, to catch up
	// without it.
	fallBehind = 10_000
)

// live applies the change log through geth.
type live struct {
	r       *Replica
	geth    *geth
	heads   heads
	tracker *headTracker
	stored  time.Time // when the position was written last
	opened  bool      // the RPC ports are open
}

// follow opens geth and applies the change log through it until ctx ends or something fails.
func (r *Replica) follow(ctx context.Context, db *opened, f *feed) error {
	g, err := r.openGeth(db)
	if err != nil {
		return err
	}
	l := &live{r: r, geth: g, heads: db.heads, tracker: newHeadTracker(g, db.heads.block), stored: time.Now()}
	f.setFrozen(func() uint64 { n, _ := g.eth.ChainDb().Ancients(); return n })
	r.setPhase(phaseLive)
	r.log.Info("geth is open", "head", g.head().Number, "position", db.at)
	err = l.loop(ctx, f)
	// Stop intake first, then the ports, then geth with the database.
	f.close()
	if err == nil || ctx.Err() == nil {
		r.log.Info("closing geth", "reason", err)
	}
	r.servers.close()
	r.mu.Lock()
	r.geth = nil
	r.state.bulkHead, r.state.bulkNum = g.head().Hash(), g.head().Number.Uint64()
	r.mu.Unlock()
	if cerr := g.close(); cerr != nil && err == nil {
		err = fmt.Errorf("close geth: %w", cerr)
	}
	return err
}

func (l *live) loop(ctx context.Context, f *feed) error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		wait := time.Second
		if at, ok := l.tracker.deadline(); ok {
			wait = max(0, min(wait, time.Until(at)))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			if err := l.tracker.idle(); err != nil {
				return err
			}
			l.moved()
		case it := <-f.items:
			if it.err != nil {
				return it.err
			}
			if err := l.handle(ctx, &it); err != nil {
				return err
			}
		}
		if err := l.gate(); err != nil {
			return err
		}
	}
}

// handle applies one event.
func (l *live) handle(ctx context.Context, it *item) error {
	switch it.event.Kind {
	case changelog.EventBatch:
		if err := l.apply(ctx, it); err != nil {
			return err
		}
	case changelog.EventTimelineStart:
		l.r.log.Info("a timeline starts", "timeline", it.event.Position.Timeline, "reason", it.event.Start.Reason)
		if err := l.store(ctx, it.event.Position); err != nil {
			return err
		}
	case changelog.EventHeartbeat:
		l.geth.setSafe(it.event.Heartbeat.Safe)
		fallthrough
	default:
		if time.Since(l.stored) >= positionEvery {
			if err := l.store(ctx, it.event.Position); err != nil {
				return err
			}
		}
	}
	l.r.applied(it)
	l.moved()
	if s := l.r.status(); s.highWater-(it.offset+1) > fallBehind {
		return fmt.Errorf("%w: %d frames behind the topic's end", errReopen, s.highWater-(it.offset+1))
	}
	return nil
}

// moved tells Status about geth's head.
func (l *live) moved() {
	head := l.geth.head()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if old := l.r.state.head; old == nil || old.Hash() != head.Hash() {
		l.r.state.head = head
		if made := l.r.state.frameTime; !made.IsZero() {
			l.r.state.headDelay = max(0, time.Since(made))
			l.r.metrics.headLatency.Observe(l.r.state.headDelay.Seconds())
		}
	}
}

// apply writes a batch with its position, and tells geth about heads.
func (l *live) apply(ctx context.Context, it *item) error {
	c := &it.change
	if err := l.tracker.before(c); err != nil {
		return err
	}
	// Before the write and not with it: after a failed one everything starts from what is stored.
	next := l.heads
	batch := l.geth.eth.ChainDb().NewBatchWithSize(len(c.data) + 256)
	defer batch.Close()
	if err := fillBatch(batch, c); err != nil {
		return fmt.Errorf("batch at %s: %w", it.event.Position, err)
	}
	if c.setsHeads() {
		next.apply(c)
		if err := batch.Put(headsKey, next.marshal()); err != nil {
			return err
		}
	}
	if err := batch.Put(changelog.PositionKey, it.event.Position.Marshal()); err != nil {
		return err
	}
	if err := l.r.write(ctx, it.event.Position, batch.Write); err != nil {
		return err
	}
	l.heads, l.stored = next, time.Now()
	return l.tracker.after(c)
}

// fillBatch puts operations into a batch of geth's database.
func fillBatch(batch ethdb.Batch, c *change) error {
	for op := range (chaindata.Batch{Data: c.data}).Ops() {
		var err error
		if op.Delete {
			err = batch.Delete(op.Key)
		} else {
			err = batch.Put(op.Key, op.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// store writes the position alone.
func (l *live) store(ctx context.Context, at changelog.Position) error {
	err := l.r.write(ctx, at, func() error { return l.geth.eth.ChainDb().Put(changelog.PositionKey, at.Marshal()) })
	if err == nil {
		l.stored = time.Now()
	}
	return err
}

// gate opens the RPC ports the first time that the replica is ready. They stay open when it stops being so: balancers
// act on readiness, and a closed port would take requests under way with it.
func (l *live) gate() error {
	if l.opened || len(l.r.reasons(time.Now())) > 0 {
		return nil
	}
	if err := l.r.servers.open(l.geth); err != nil {
		return err
	}
	l.opened = true
	return nil
}

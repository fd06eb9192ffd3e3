// Package replica is the replica role: it applies the change log to a copied chaindata and serves geth's JSON-RPC from it.
//
// While far behind it writes batches to a bare LevelDB; near the topic's end it hands the database to an embedded
// go-ethereum, goes on through it, and opens its RPC port once it has reached the end. See DESIGN.md.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Replica is the replica role. New makes one, Run does the work, Status may be called at any time.
type Replica struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	servers *servers

	mu    sync.Mutex
	state state
	geth  *geth // nil unless open
}

// state is what Status tells, under Replica.mu.
type state struct {
	phase     phase
	at        changelog.Position
	frameTime time.Time // of the frame applied last
	highWater int64     // the topic's next offset, as far as known; -1 unknown
	head      *types.Header
	headDelay time.Duration // from the master's frame to geth's head, of the newest head; 0 none yet
	bulkHead  common.Hash   // while geth is closed
	bulkNum   uint64

	heartbeat *changelog.Heartbeat
	// heartbeatTime is when the master made it, heartbeatAt when it was received.
	heartbeatTime, heartbeatAt time.Time

	prepared string // how far Options.Prepare has come
	applyErr error  // a write that is being retried
	fatal    error  // what ended Run
}

type phase int

const (
	phaseStarting phase = iota
	phasePreparing
	phaseBulk
	phaseOpening
	phaseLive
	phaseStopped
)

func (p phase) String() string {
	return [...]string{"starting", "restoring", "catching up", "opening geth", "live", "stopped"}[p]
}

// New checks the options and that the RPC ports are free; it does not touch the database. Errors wrap ErrUsage.
func New(opts Options) (*Replica, error) {
	opts.setDefaults()
	if err := opts.check(); err != nil {
		return nil, err
	}
	r := &Replica{opts: opts, log: opts.Logger.With("role", "replica")}
	r.state.highWater, r.state.at.Offset = -1, -1
	r.servers = newServers(&r.opts, r.log, r.markStale)
	if err := r.servers.checkPorts(); err != nil {
		return nil, err
	}
	r.metrics = newMetrics(r, opts.Registerer)
	return r, nil
}

// Run applies the change log and serves until ctx ends (nil), the topic's end with UntilSynced (nil), or an error that
// cannot be overcome: a hole, a damaged frame, a position no longer retained, a database that does not fit. It must be
// called once.
func (r *Replica) Run(ctx context.Context) (err error) {
	defer func() {
		r.servers.close()
		r.mu.Lock()
		r.state.phase, r.state.fatal = phaseStopped, err
		r.mu.Unlock()
	}()
	if err := r.prepare(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return nil
		}
		return err
	}
	for delay := time.Second; ; delay = min(2*delay, 30*time.Second) {
		began := time.Now()
		err := r.session(ctx)
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())):
			return nil
		case !errors.Is(err, errReopen):
			return err
		}
		if time.Since(began) > time.Minute {
			delay = time.Second
		}
		r.log.Warn("closing the database and opening it again", "reason", err, "in", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// prepare fills an empty datadir. Status says meanwhile how far it has come.
func (r *Replica) prepare(ctx context.Context) error {
	if r.opts.Prepare == nil {
		return nil
	}
	r.setPhase(phasePreparing)
	return r.opts.Prepare(ctx, func(progress string) {
		r.mu.Lock()
		r.state.prepared = progress
		r.mu.Unlock()
	})
}

// session is one time of opening the database and following the change log.
func (r *Replica) session(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.setPhase(phaseStarting)
	if err := r.adopt(ctx); err != nil {
		return err
	}
	db, err := openDatabase(&r.opts)
	if err != nil {
		return err
	}
	closeDB := sync.OnceValue(db.db.Close)
	defer func() { err = errors.Join(err, closeDB()) }()
	if err := r.confirm(ctx, db); err != nil {
		return err
	}
	if err := db.loadHeads(); err != nil {
		return err
	}
	r.mu.Lock()
	r.state.at = db.at
	r.state.bulkHead, r.state.bulkNum = db.heads.block, db.number(db.heads.block)
	r.mu.Unlock()

	start, err := r.opts.Log.Join(ctx, db.at)
	if err != nil {
		return err
	}
	_, next, err := r.opts.Log.Bounds(ctx)
	if err != nil {
		return err
	}
	if db.at.Offset < 0 {
		// A copy's sequence was known, its offset was not.
		db.at.Offset = start - 1
		r.mu.Lock()
		r.state.at = db.at
		r.mu.Unlock()
	}
	r.log.Info("joined the change log", "position", db.at, "offset", start, "end", next, "head", r.state.bulkNum)
	r.setHighWater(next)
	feed := startFeed(ctx, r.opts.Log.Read(start), feedOptions{
		at: db.at, genesis: db.genesis, frozen: frozenBlocks(r.opts.chaindata()), metrics: r.metrics,
	})
	defer feed.close()
	go r.watchEnd(ctx)

	if r.opts.UntilSynced || next-start > r.opts.LiveFrames {
		r.setPhase(phaseBulk)
		if err := r.catchUp(ctx, db, feed, start, next); err != nil {
			return err
		}
	}
	if err := r.settle(ctx, db.db); err != nil || r.opts.UntilSynced {
		return err
	}
	if err := closeDB(); err != nil {
		return fmt.Errorf("close the database: %w", err)
	}
	// Catching up leaves hundreds of megabytes of memtables and groups behind, which the system would get back only slowly.
	debug.FreeOSMemory()
	return r.follow(ctx, db, feed)
}

func (r *Replica) setPhase(p phase) {
	r.mu.Lock()
	r.state.phase = p
	r.mu.Unlock()
}

// endEvery is how often the topic is asked for its end.
const endEvery = 2 * time.Second

// watchEnd keeps the topic's end current until ctx ends. What comes with the entries is the end as it was when they were
// fetched: after an outage of the brokers the topic grows by a whole backlog before they are applied, and a replica would
// count itself ready, and catch up through geth, a head at a time.
func (r *Replica) watchEnd(ctx context.Context) {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// An error is the reader's to report, and that nothing can be heard of the master makes the replica stale.
		if _, next, err := r.opts.Log.Bounds(ctx); err == nil {
			r.setHighWater(next)
		}
	}
}

func (r *Replica) setHighWater(n int64) {
	r.mu.Lock()
	r.state.highWater = max(r.state.highWater, n)
	r.mu.Unlock()
}

// applied records what an event did.
func (r *Replica) applied(it *item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.state
	s.at, s.applyErr = it.event.Position, nil
	s.highWater = max(s.highWater, it.event.HighWater)
	if !it.event.Time.IsZero() {
		s.frameTime = it.event.Time
	}
	if hb := it.event.Heartbeat; hb != nil {
		s.heartbeat, s.heartbeatTime, s.heartbeatAt = hb, it.event.Time, time.Now()
	}
}

// openGeth hands the database to geth and checks that it stands where the stream does.
func (r *Replica) openGeth(db *opened) (*geth, error) {
	r.setPhase(phaseOpening)
	g, err := openGeth(gethConfig{
		datadir: r.opts.Datadir, cacheMB: r.opts.Cache, handles: r.opts.Handles,
		transactionHistory: r.opts.TransactionHistory, logHistory: r.opts.LogHistory,
		rpcGasCap: r.opts.RPCGasCap, rpcEVMTimeout: r.opts.RPCEVMTimeout, logger: r.log,
	})
	if err != nil {
		return nil, err
	}
	if head := g.head().Hash(); head != db.heads.block {
		return nil, errors.Join(fmt.Errorf("%w: the change log's head is %s, geth found %d (%s) in the database: restore a snapshot",
			ErrDiverged, db.heads.block, g.head().Number, head), g.close())
	}
	if db.repaired {
		if err := g.SetCanonical(db.heads.block); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	r.mu.Lock()
	r.geth = g
	r.state.head = g.head()
	r.mu.Unlock()
	return g, nil
}

// HTTPAddr returns the address that HTTP is served on; empty until the port is open.
func (r *Replica) HTTPAddr() string { return r.servers.addr(false) }

// WSAddr returns the address that WebSockets are served on; empty until the port is open.
func (r *Replica) WSAddr() string { return r.servers.addr(true) }

func hostPort(host string, port int) string {
	return net.JoinHostPort(strings.Trim(host, "[]"), fmt.Sprint(port))
}

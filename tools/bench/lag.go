package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
)

const (
	lagPeriod = time.Second // between heads
	lagWarmUp = 10          // heads before the first run
)

func newLagFigure() *figure {
	f := newFigure("lag", "from the journal write of a head to the replica's newHeads notification over WebSocket",
		&target{Series: "p50 of all runs", Limit: 10}, &target{Series: "p99 of all runs", Limit: 50})
	f.note("each second a block of the chain goes to geth by engine_newPayload, and becomes the head by engine_forkchoiceUpdated right after")
	f.note("journal write: a chaindata.Follower of the bench's own on the master's chaindata (inotify) has the batch that sets LastBlock")
	f.note("call to answer: from sending engine_forkchoiceUpdated, geth's own work included; its p50 bounds the lag from above")
	f.lagNotes()
	return f
}

func (f *figure) lagNotes() {
	f.note("to frame: until the master makes the frame of that batch, by the time in the frame")
	f.note("publish to apply: from that time to the replica's notification of the head")
}

func (b *bench) lag(ctx context.Context) ([]*figure, error) {
	if !b.wants("lag") {
		return nil, nil
	}
	return b.lagOf(ctx, newLagFigure())
}

// lagOf measures one head each second, b.heads in each run, all in one life of master and replica.
func (b *bench) lagOf(ctx context.Context, f *figure) (_ []*figure, err error) {
	blocks, err := readBlocks(b.chainFile(), lagWarmUp+b.runs*b.heads)
	if err != nil {
		return nil, err
	}
	s := &lagSetup{bench: b}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	b.say("%s: %d heads to warm up, then %d runs of %d heads (load %.2f)", f.Name, lagWarmUp, b.runs, b.heads, load())
	if err := s.send(ctx, blocks[:lagWarmUp]); err != nil {
		return nil, err
	}
	var txs int
	for run := range b.runs {
		f.Load = append(f.Load, load())
		part := blocks[lagWarmUp+run*b.heads:][:b.heads]
		b.say("%s: run %d of %d (load %.2f)", f.Name, run+1, b.runs, load())
		before := s.cpu()
		if err := s.send(ctx, part); err != nil {
			return nil, err
		}
		s.cpuUsed(f, before)
		for _, block := range part {
			txs += len(block.Transactions())
		}
	}
	f.note("%d heads, %d transactions in all", b.runs*b.heads, txs)
	return []*figure{f}, s.evaluate(ctx, f, blocks[lagWarmUp:])
}

// lagSetup is a master, a replica and two observers of heads.
type lagSetup struct {
	*bench
	cluster         *cluster
	master, replica *harness.Process
	datadir         string
	engine          *harness.Engine
	journal         *journalHeads
	socket          *socketHeads
	asked           map[common.Hash]time.Time // when engine_forkchoiceUpdated was sent
}

func (s *lagSetup) open(ctx context.Context) (err error) {
	s.asked = make(map[common.Hash]time.Time)
	if s.cluster, err = s.newCluster(ctx); err != nil {
		return err
	}
	if s.datadir, err = s.fresh("lag-master"); err != nil {
		return err
	}
	copied, err := s.fresh("lag-replica")
	if err != nil {
		return err
	}
	e, err := harness.NewEndpoints()
	if err != nil {
		return err
	}
	jwt := filepath.Join(s.dir, "jwt")
	secret, err := harness.WriteJWT(jwt)
	if err != nil {
		return err
	}
	if s.master, err = s.start(s.masterCommand(s.cluster, s.datadir, harness.NodeArgs(s.datadir, jwt, e)...)); err != nil {
		return err
	}
	if err := harness.Ready(ctx, s.master, e, time.Minute); err != nil {
		return err
	}
	if s.engine, err = harness.DialEngine(ctx, e.EngineURL(), secret); err != nil {
		return err
	}
	if err := s.openReplica(ctx, copied); err != nil {
		return err
	}
	s.journal, err = followHeads(harness.Chaindata(s.datadir), filepath.Join(s.dir, "lag-journals"))
	return err
}

func (s *lagSetup) openReplica(ctx context.Context, datadir string) error {
	e, err := harness.NewEndpoints()
	if err != nil {
		return err
	}
	// --stale serve: the blocks of the chain are as old as its genesis.
	s.replica, err = s.start(s.replicaCommand(s.cluster, datadir, "--stale", "serve",
		"--http", "--http.port", strconv.Itoa(e.HTTPPort), "--ws", "--ws.port", strconv.Itoa(e.WSPort)))
	if err != nil {
		return err
	}
	if err := harness.Ready(ctx, s.replica, e, time.Minute); err != nil {
		return err
	}
	s.socket, err = subscribeHeads(ctx, e.WSURL())
	return err
}

func (s *lagSetup) close() error {
	var errs []error
	if s.socket != nil {
		s.socket.close()
	}
	if s.journal != nil {
		errs = append(errs, s.journal.close())
	}
	if s.engine != nil {
		s.engine.Close()
	}
	for _, p := range []*harness.Process{s.replica, s.master} {
		if p != nil {
			_, err := p.Stop(time.Minute)
			errs = append(errs, err)
		}
	}
	if s.cluster != nil {
		errs = append(errs, s.end(s.cluster))
	}
	return errors.Join(errs...)
}

// send makes one block after the other the head, at a steady pace.
func (s *lagSetup) send(ctx context.Context, blocks []*types.Block) error {
	tick := time.NewTicker(lagPeriod)
	defer tick.Stop()
	for _, block := range blocks {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.engine.Insert(ctx, block); err != nil {
			return err
		}
		s.asked[block.Hash()] = time.Now()
		if err := s.engine.Head(ctx, block.Hash(), common.Hash{}, common.Hash{}); err != nil {
			return err
		}
	}
	last := blocks[len(blocks)-1].Hash()
	return harness.Until(ctx, time.Minute, 10*time.Millisecond, func(context.Context) error {
		if _, ok := s.socket.seen.at(last); !ok {
			return errors.Join(fmt.Errorf("the replica has not told of head %s", last), s.socket.seen.failure())
		}
		return s.journal.seen.failure()
	})
}

// cpu is what each process has used so far.
func (s *lagSetup) cpu() map[string]time.Duration {
	used := make(map[string]time.Duration)
	used["drover master CPU"], _ = cpuOf(s.master.Pid())
	used["drover replica CPU"], _ = cpuOf(s.replica.Pid())
	used["broker CPU"] = s.cluster.cpu()
	return used
}

func (s *lagSetup) cpuUsed(f *figure, before map[string]time.Duration) {
	after := s.cpu()
	for _, name := range []string{"drover master CPU", "drover replica CPU", "broker CPU"} {
		f.add(name, "s", (after[name] - before[name]).Seconds())
	}
}

// evaluate turns the observers' times into lags.
func (s *lagSetup) evaluate(ctx context.Context, f *figure, blocks []*types.Block) error {
	frames, err := frameTimes(ctx, s.cluster.addr)
	if err != nil {
		return err
	}
	var all, allBounds, toFrame, fromFrame []float64
	for run := range s.runs {
		var lags, applied []float64
		for _, block := range blocks[run*s.heads:][:s.heads] {
			hash := block.Hash()
			written, ok := s.journal.seen.at(hash)
			told, ok2 := s.socket.seen.at(hash)
			framed, ok3 := frames[hash]
			if !ok || !ok2 || !ok3 {
				return fmt.Errorf("head %d was not seen everywhere: journal %t, replica %t, change log %t", block.NumberU64(), ok, ok2, ok3)
			}
			lags = append(lags, millis(told.Sub(written)))
			allBounds = append(allBounds, millis(told.Sub(s.asked[hash])))
			toFrame = append(toFrame, millis(framed.Sub(written)))
			applied = append(applied, millis(told.Sub(framed)))
		}
		all, fromFrame = append(all, lags...), append(fromFrame, applied...)
		f.add("p50", "ms", quantile(lags, 0.50))
		f.add("p99", "ms", quantile(lags, 0.99))
		f.add("publish to apply, p50", "ms", quantile(applied, 0.50))
		f.add("publish to apply, p99", "ms", quantile(applied, 0.99))
	}
	f.add("p50 of all runs", "ms", quantile(all, 0.50))
	f.add("p90 of all runs", "ms", quantile(all, 0.90))
	f.add("p99 of all runs", "ms", quantile(all, 0.99))
	f.add("largest", "ms", quantile(all, 1))
	f.add("call to answer, p50", "ms", quantile(allBounds, 0.50))
	f.add("call to answer, p99", "ms", quantile(allBounds, 0.99))
	f.add("publish to apply, p50 of all runs", "ms", quantile(fromFrame, 0.50))
	f.add("publish to apply, p99 of all runs", "ms", quantile(fromFrame, 0.99))
	f.add("to frame, p50", "ms", quantile(toFrame, 0.50))
	f.add("to frame, p99", "ms", quantile(toFrame, 0.99))
	return nil
}

// frameTimes are the times of the frames that set the head.
func frameTimes(ctx context.Context, brokers string) (map[common.Hash]time.Time, error) {
	log, err := openLog(ctx, brokers, clusterName)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	first, next, err := log.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	times := make(map[common.Hash]time.Time)
	return times, log.ReadRange(ctx, first, next, func(e changelog.Entry) error {
		if e.Err != nil || e.Frame.Kind != changelog.KindBatch || e.Frame.Parts > 1 {
			return e.Err
		}
		hash, ok, err := headOf(e.Frame.Payload)
		if ok {
			times[hash] = e.Frame.Time
		}
		return err
	})
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile is the smallest value that at least the share q of the values does not pass.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

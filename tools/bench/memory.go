package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/drover-io/drover/e2e/harness"
)

// memorySettle is the time between a node's being ready and the look at its memory.
const memorySettle = 15 * time.Second

func newMemoryFigure(pause time.Duration) *figure {
	f := newFigure("memory", "resident memory: the master during an import with the broker paused, the replica beside a plain geth",
		&target{Series: "master peak", Limit: 100}, &target{Series: "replica minus geth", Limit: 200})
	f.timed = false
	f.note("master peak: VmHWM of the drover master process (without geth) during an import; the broker is stopped by a signal for %s in its midst", pause)
	f.note("replica: VmRSS %s after it caught up with that import and opened geth; geth: VmRSS of a stock geth as long after it answers, on a database that another replica caught up and nothing more, so that both have the logs to index; --cache %d, no peers", memorySettle, cacheMB)
	f.note("started again: both once more, each on its own database, with nothing left to index")
	f.note("MB are 10^6 bytes, as everywhere here")
	return f
}

func (b *bench) memory(ctx context.Context) ([]*figure, error) {
	if !b.wants("memory") {
		return nil, nil
	}
	f := newMemoryFigure(b.pause)
	for run := range b.runs {
		f.Load = append(f.Load, load())
		b.say("run %d of %d: memory (load %.2f)", run+1, b.runs, load())
		if err := b.memoryRun(ctx, f); err != nil {
			return []*figure{f}, fmt.Errorf("memory, run %d: %w", run+1, err)
		}
	}
	return []*figure{f}, nil
}

func (b *bench) memoryRun(ctx context.Context, f *figure) (err error) {
	master, err := b.fresh("memory-master")
	if err != nil {
		return err
	}
	c, err := b.newCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end(c), b.drop(master)) }()
	if err := b.memoryMaster(ctx, f, c, master); err != nil {
		return err
	}
	replica, err := b.fresh("memory-replica")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(replica)) }()
	plain, err := b.caughtUp(ctx, c, "memory-geth")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.drop(plain)) }()
	return b.memoryServing(ctx, f, c, replica, plain)
}

// caughtUp is a database as a replica leaves it that only caught up: geth was never opened on it.
func (b *bench) caughtUp(ctx context.Context, c *cluster, name string) (datadir string, err error) {
	if datadir, err = b.fresh(name); err != nil {
		return "", err
	}
	_, err = b.timed(ctx, b.replicaCommand(c, datadir, "--until-synced"))
	return datadir, err
}

// memoryServing looks at a replica and at a geth that both open the same database, with the same logs to index, and at
// both again when that is done.
func (b *bench) memoryServing(ctx context.Context, f *figure, c *cluster, replica, plain string) error {
	for _, again := range []string{"", ", started again"} {
		own, peak, err := b.memoryReplica(ctx, c, replica)
		if err != nil {
			return err
		}
		stock, stockPeak, err := b.memoryGeth(ctx, plain)
		if err != nil {
			return err
		}
		f.add("replica"+again, "MB", own)
		f.add("geth"+again, "MB", stock)
		f.add("replica minus geth"+again, "MB", own-stock)
		f.add("replica, peak"+again, "MB", peak)
		f.add("geth, peak"+again, "MB", stockPeak)
	}
	return nil
}

// memoryMaster pauses the broker once the import is under way.
func (b *bench) memoryMaster(ctx context.Context, f *figure, c *cluster, datadir string) error {
	p, err := b.start(b.masterCommand(c, datadir, b.importArgs(datadir)...))
	if err != nil {
		return err
	}
	paused := make(chan error, 1)
	go func() {
		defer close(paused)
		if wait(ctx, 4*time.Second) != nil || !p.Running() {
			paused <- errors.New("the import ended before the broker was paused: use a longer chain")
			return
		}
		paused <- errors.Join(c.broker.Pause(), wait(ctx, b.pause), c.broker.Resume())
	}()
	u := watch(ctx, p)
	if err := errors.Join(<-paused, b.ended(ctx, p, &u)); err != nil {
		return err
	}
	f.add("master peak", "MB", u.peak)
	return nil
}

// memoryReplica is the memory of a replica that has caught up and opened geth; no RPC port is open.
func (b *bench) memoryReplica(ctx context.Context, c *cluster, datadir string) (resident, peak float64, err error) {
	port, err := harness.FreePort()
	if err != nil {
		return 0, 0, err
	}
	// The master has ended, so what it last said grows old.
	p, err := b.start(b.replicaCommand(c, datadir, "--admin.addr", localhost(port), "--stale", "serve", "--ready.max-heartbeat-age", "24h"))
	if err != nil {
		return 0, 0, err
	}
	err = harness.Until(ctx, 3*time.Minute, 100*time.Millisecond, func(ctx context.Context) error {
		if !p.Running() {
			return fmt.Errorf("the replica has ended:\n%s", p.Tail(10))
		}
		return ready(ctx, port)
	})
	if err == nil {
		err = wait(ctx, memorySettle)
	}
	resident, peak = memoryOf(p.Pid(), "VmRSS"), memoryOf(p.Pid(), "VmHWM")
	_, stop := p.Stop(time.Minute)
	return resident, peak, errors.Join(err, stop)
}

// memoryGeth is the memory of a stock geth on the database of a replica that has ended.
func (b *bench) memoryGeth(ctx context.Context, datadir string) (resident, peak float64, err error) {
	port, err := harness.FreePort()
	if err != nil {
		return 0, 0, err
	}
	e := harness.Endpoints{HTTPPort: port}
	args := append(harness.StorageArgs(datadir), "--networkid", "1337", "--syncmode", "full", "--cache", strconv.Itoa(cacheMB),
		"--port", "0", "--nodiscover", "--maxpeers", "0", "--nat", "none", "--authrpc.port", "0",
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(port)) // to see that it is up
	p, err := b.start(b.command("geth", b.geth, args...))
	if err != nil {
		return 0, 0, err
	}
	if err = harness.Ready(ctx, p, e, time.Minute); err == nil {
		err = wait(ctx, memorySettle)
	}
	resident, peak = memoryOf(p.Pid(), "VmRSS"), memoryOf(p.Pid(), "VmHWM")
	_, stop := p.Stop(time.Minute)
	return resident, peak, errors.Join(err, stop)
}

// ready is nil when /readyz answers 200.
func ready(ctx context.Context, port int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+localhost(port)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: HTTP %s", response.Status)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

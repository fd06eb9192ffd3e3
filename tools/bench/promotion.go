package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
)

const (
	promotionWarmUp = 40 // blocks before the first promotion
	promotionLimit  = 2 * time.Minute
	promotionPoll   = 10 * time.Millisecond
)

func newPromotionFigure() *figure {
	f := newFigure("promotion", "kill -9 of master and geth, until a block of the promoted replica's geth is the head of another replica",
		&target{Series: "to first block elsewhere", Limit: 10})
	f.note("the candidate serves, caught up, until the kill; then it is stopped in order (SIGTERM to exit code 0), and `drover master --takeover` starts on its datadir at once")
	f.note("detect, drain, open, prepare, geth, first block: as the new master logs them (docs/promotion.md); detect is its window of listening, three heartbeats")
	f.note("replicas ready: until the other replica's /readyz says 200 after that block; its own RPC stays open throughout")
	return f
}

// promotion kills the master and promotes replicas one after the other, while one replica follows all of them.
func (b *bench) promotion(ctx context.Context) (_ []*figure, err error) {
	if !b.wants("promotion") {
		return nil, nil
	}
	blocks, err := readBlocks(b.chainFile(), promotionWarmUp+b.promotions)
	if err != nil {
		return nil, err
	}
	f := newPromotionFigure()
	p := &promotions{bench: b}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.open(ctx); err != nil {
		return nil, fmt.Errorf("promotion: %w", err)
	}
	for _, block := range blocks[:promotionWarmUp] {
		if err := p.master.insert(ctx, block); err != nil {
			return nil, fmt.Errorf("promotion: %w", err)
		}
	}
	last := blocks[promotionWarmUp-1]
	for round, block := range blocks[promotionWarmUp:] {
		f.Load = append(f.Load, load())
		b.say("promotion %d of %d (load %.2f)", round+1, b.promotions, load())
		if err := p.round(ctx, f, round, last, block); err != nil {
			return []*figure{f}, fmt.Errorf("promotion %d: %w", round+1, err)
		}
		last = block
	}
	return []*figure{f}, nil
}

// server is a running master or replica.
type server struct {
	*harness.Process
	harness.Endpoints
	engine *harness.Engine // masters only
	admin  int             // port
}

func (s *server) insert(ctx context.Context, block *types.Block) error {
	if err := s.engine.Insert(ctx, block); err != nil {
		return err
	}
	return s.engine.Head(ctx, block.Hash(), common.Hash{}, common.Hash{})
}

// reaches waits until the node's head is the block.
func (s *server) reaches(ctx context.Context, hash common.Hash) error {
	return harness.Until(ctx, promotionLimit, promotionPoll, func(ctx context.Context) error {
		if !s.Running() {
			return fmt.Errorf("%s has ended:\n%s", s.Name, s.Tail(10))
		}
		var head struct{ Hash common.Hash }
		err := harness.Ask(ctx, s.HTTP(), &head, "eth_getBlockByNumber", "latest", false)
		if err == nil && head.Hash != hash {
			err = fmt.Errorf("%s is at block %s, not at %s", s.Name, head.Hash, hash)
		}
		return err
	})
}

// promotions is a master, a replica that follows, and what candidates start from.
type promotions struct {
	*bench
	cluster         *cluster
	jwt             string
	secret          [32]byte
	master, watcher *server
}

func (p *promotions) open(ctx context.Context) (err error) {
	if p.cluster, err = p.newCluster(ctx); err != nil {
		return err
	}
	p.jwt = filepath.Join(p.dir, "promotion-jwt")
	if p.secret, err = harness.WriteJWT(p.jwt); err != nil {
		return err
	}
	datadir, err := p.fresh("promotion-master")
	if err != nil {
		return err
	}
	if p.master, err = p.startMaster(ctx, "master-0", datadir); err != nil {
		return err
	}
	p.watcher, _, err = p.startReplica("watcher")
	return err
}

func (p *promotions) close() error {
	var errs []error
	for _, s := range []*server{p.watcher, p.master} {
		if s == nil {
			continue
		}
		if s.engine != nil {
			s.engine.Close()
		}
		_, err := s.Stop(time.Minute)
		errs = append(errs, err)
	}
	if p.cluster != nil {
		errs = append(errs, p.end(p.cluster))
	}
	return errors.Join(errs...)
}

// startMaster returns when geth answers.
func (p *promotions) startMaster(ctx context.Context, name, datadir string, flags ...string) (*server, error) {
	e, err := harness.NewEndpoints()
	if err != nil {
		return nil, err
	}
	args := append(roleArgs("master", p.cluster, datadir, flags...), "--", p.geth)
	s := &server{Endpoints: e}
	if s.Process, err = p.start(p.command(name, p.drover, append(args, harness.NodeArgs(datadir, p.jwt, e)...)...)); err != nil {
		return nil, err
	}
	err = harness.Until(ctx, promotionLimit, promotionPoll, func(ctx context.Context) error {
		if !s.Running() {
			return fmt.Errorf("%s has ended:\n%s", name, s.Tail(10))
		}
		return harness.Ask(ctx, e.HTTP(), nil, "eth_chainId")
	})
	if err != nil {
		return nil, err
	}
	s.engine, err = harness.DialEngine(ctx, e.EngineURL(), p.secret)
	return s, err
}

// startReplica starts one that catches up from the genesis block.
func (p *promotions) startReplica(name string) (s *server, datadir string, err error) {
	state, err := chaindata.Inspect(harness.Chaindata(p.seed))
	if err != nil {
		return nil, "", err
	}
	if datadir, err = p.fresh("promotion-" + name); err != nil {
		return nil, "", err
	}
	err = chaindata.WriteMarker(harness.Chaindata(datadir), chaindata.Marker{
		Cluster: clusterName, Timeline: 1, Role: chaindata.RoleCopy, Sequence: state.Sequence,
	})
	if err != nil {
		return nil, "", err
	}
	s = new(server)
	if s.Endpoints, err = harness.NewEndpoints(); err != nil {
		return nil, "", err
	}
	if s.admin, err = harness.FreePort(); err != nil {
		return nil, "", err
	}
	// --stale serve: the blocks of the chain are as old as its genesis.
	c := p.replicaCommand(p.cluster, datadir, "--admin.addr", localhost(s.admin), "--stale", "serve", "--http", "--http.port", strconv.Itoa(s.HTTPPort))
	c.Name = name
	s.Process, err = p.start(c)
	return s, datadir, err
}

// round promotes one replica. last is the head, next the block that the new master's geth is given.
func (p *promotions) round(ctx context.Context, f *figure, round int, last, next *types.Block) error {
	candidate, datadir, err := p.startReplica(fmt.Sprintf("candidate-%d", round+1))
	if err != nil {
		return err
	}
	if err := errors.Join(p.watcher.reaches(ctx, last.Hash()), candidate.reaches(ctx, last.Hash())); err != nil {
		return err
	}
	geth, err := p.master.Children()
	if err == nil && len(geth) != 1 {
		err = fmt.Errorf("the master has the children %v", geth)
	}
	if err != nil {
		return err
	}
	began := time.Now()
	if err := errors.Join(syscall.Kill(geth[0], syscall.SIGKILL), p.master.Kill()); err != nil {
		return err
	}
	p.master.engine.Close()
	if code, err := candidate.Stop(time.Minute); err != nil || code != 0 {
		return errors.Join(err, fmt.Errorf("the candidate ended with exit code %d:\n%s", code, candidate.Tail(10)))
	}
	stopped := time.Now()
	if p.master, err = p.startMaster(ctx, fmt.Sprintf("master-%d", round+1), datadir, "--takeover"); err != nil {
		return err
	}
	if err := p.master.insert(ctx, next); err != nil {
		return err
	}
	if err := p.watcher.reaches(ctx, next.Hash()); err != nil {
		return err
	}
	arrived := time.Now()
	err = harness.Until(ctx, promotionLimit, promotionPoll, func(ctx context.Context) error { return ready(ctx, p.watcher.admin) })
	if err != nil {
		return err
	}
	isReady := time.Now()
	parts, err := p.parts(ctx)
	if err != nil {
		return err
	}
	f.seconds("to first block elsewhere", arrived.Sub(began))
	f.seconds("— stop of the replica", stopped.Sub(began))
	for _, name := range promotionParts {
		f.seconds("— "+name, parts[name])
	}
	f.seconds("replicas ready", isReady.Sub(began))
	return nil
}

// parts waits for the new master's own account.
func (p *promotions) parts(ctx context.Context) (parts map[string]time.Duration, err error) {
	err = harness.Until(ctx, promotionLimit, promotionPoll, func(context.Context) error {
		parts, err = tookOver(p.master.Output())
		return err
	})
	return parts, err
}

// promotionParts are the names in the master's line.
var promotionParts = []string{"detect", "drain", "open", "prepare", "geth", "firstBlock", "total"}

var (
	tookOverLine = regexp.MustCompile(`msg="took over" .*`)
	tookOverPart = regexp.MustCompile(`(\w+)=([0-9.]+[a-zµ0-9.]*)`)
)

// tookOver finds the parts of a takeover's time in what a master wrote.
func tookOver(output string) (map[string]time.Duration, error) {
	line := tookOverLine.FindString(output)
	parts := make(map[string]time.Duration)
	for _, match := range tookOverPart.FindAllStringSubmatch(line, -1) {
		if d, err := time.ParseDuration(match[2]); err == nil {
			parts[match[1]] = d
		}
	}
	for _, name := range promotionParts {
		if _, ok := parts[name]; !ok {
			return nil, fmt.Errorf("the master has not written how long %s took: %q", name, line)
		}
	}
	return parts, nil
}

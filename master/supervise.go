package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// runSupervised is the order of DESIGN.md: nothing is written to the topic before the database is known to be ours and
// still, and geth does not start before the topic has all of it.
func (m *Master) runSupervised(ctx context.Context) error {
	if err := parseGethArgs(m.opts.Geth, os.Getenv).check(m.opts.Datadir); err != nil {
		return err
	}
	unlockRole, err := m.lockRole()
	if err != nil {
		return err
	}
	defer unlockRole()
	unlock, err := m.lockDatabase(ctx)
	if err != nil {
		return stopped(ctx, err)
	}
	defer func() { unlock() }()
	if err := chaindata.CheckSource(m.opts.Chaindata); err != nil {
		return err
	}
	log, err := changelog.Open(ctx, m.opts.Kafka)
	if err != nil {
		return stopped(ctx, err)
	}
	defer log.Close()
	found, err := m.survey(ctx, log, false)
	if err != nil {
		return stopped(ctx, err)
	}
	m.tell(found)
	s, err := m.open(ctx, log, found, &unlock)
	if err != nil {
		return stopped(ctx, err)
	}
	defer s.close()

	m.setPhase(phaseDraining)
	if err := m.drainAtRest(ctx, s); err != nil {
		return stopped(ctx, err)
	}
	last, _, _ := s.pump.position()
	f, err := m.follow(last)
	if err != nil {
		return err
	}
	defer f.Close()
	m.setFollower(f)
	defer m.setFollower(nil)

	unlock()
	unlock = func() {}
	process, err := startGeth(m.opts.Geth, m.opts.Stdout, m.opts.Stderr)
	if err != nil {
		return err
	}
	m.geth.set(process)
	// Whatever way this function is left, geth is gone first.
	defer process.stop(m.opts.StopTimeout)
	m.log.Info("geth started", "pid", process.pid)
	m.setPhase(phaseCapturing)
	if s.promotion != nil {
		s.promotion.started = time.Now()
		s.watchers.Go(func() { m.watchPromotion(s.work, s, s.promotion) })
	}

	c := m.newCapture(f, s.pump, new(chaindata.ArchiveCheck), s.fail)
	c.start(s.work)
	return m.supervise(ctx, s, c, process)
}

// supervise waits for the first thing that ends the capture, ends geth if it has not ended, and publishes the rest.
func (m *Master) supervise(ctx context.Context, s *session, c *capture, process *gethProcess) error {
	watching, stopWatching := context.WithCancel(s.work)
	defer stopWatching()
	go m.watchSource(watching, s, process)

	var cause error
	select {
	case <-ctx.Done():
		m.log.Info("stopping geth")
	case <-process.done:
		m.log.Info("geth has ended", "code", process.code)
	case cause = <-s.failures:
		m.log.Error("stopping geth", "err", cause)
	case <-c.follower.SpoolFull():
		cause = fmt.Errorf("%w: the brokers have not taken what geth wrote, and the journals kept for them are larger than %d bytes: "+
			"bring the brokers back or raise the limit, then start again; nothing is lost", chaindata.ErrSpoolFull, m.opts.SpoolLimit)
		m.log.Error("stopping geth", "err", cause)
	}
	stopWatching()
	ownEnd := !process.alive()
	m.setPhase(phaseStopping)
	if !process.stop(m.opts.StopTimeout) {
		m.log.Warn("geth did not end in time and was killed", "after", m.opts.StopTimeout)
	}
	rest := s.finish(c, ownEnd)
	if rest == nil {
		rest = s.failure()
	}
	if errors.Is(cause, chaindata.ErrCorruptJournal) {
		// A new Pebble database shows its own journals first.
		if err := chaindata.CheckSource(m.opts.Chaindata); errors.Is(err, chaindata.ErrUnsupportedSource) {
			cause = err
		}
	}
	switch {
	case cause != nil:
		if rest != nil && !errors.Is(rest, cause) {
			m.log.Warn("after the stop", "err", rest)
		}
		return cause
	case rest != nil:
		return rest
	case ownEnd && process.code != 0:
		return &GethExitError{Code: process.code}
	}
	return nil
}

// watchSource looks once a second for what the journals cannot tell: that the process which holds the database is the
// one that dies with us.
func (m *Master) watchSource(ctx context.Context, s *session, process *gethProcess) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		pids, sure := holders(filepath.Join(m.opts.Chaindata, "LOCK"))
		if len(pids) == 0 || !process.alive() {
			continue
		}
		if sure && !slices.Contains(pids, process.pid) {
			s.fail(fmt.Errorf("%w: process %d has the database open, Drover started %d: "+
				"a wrapper script has to end in `exec geth …`, or geth would outlive a killed Drover", ErrWrapped, pids[0], process.pid))
		}
		return
	}
}

// lockRole keeps a second master away from the same database.
func (m *Master) lockRole() (release func(), err error) {
	if err := os.MkdirAll(m.opts.Chaindata, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(m.opts.Chaindata), "drover.lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("%w: another drover master works on %s (it holds %s)", chaindata.ErrLocked, m.opts.Chaindata, path)
	}
	return func() { file.Close() }, nil
}

func (m *Master) lockDatabase(ctx context.Context) (release func(), err error) {
	release, err = awaitLock(ctx, m.opts.LockTimeout,
		func() (func(), error) { return chaindata.Lock(m.opts.Chaindata) },
		func(err error) bool { return errors.Is(err, chaindata.ErrLocked) })
	if errors.Is(err, chaindata.ErrLocked) {
		if pids, _ := holders(filepath.Join(m.opts.Chaindata, "LOCK")); len(pids) > 0 {
			return nil, fmt.Errorf("%w (process %d, still after %v)", err, pids[0], m.opts.LockTimeout)
		}
	}
	return release, err
}

// survey is what a Master knows before it writes anything.
type survey struct {
	plan   plan
	tail   changelog.Tail
	source source
}

// whileStarting bounds what is asked of the brokers before geth runs: later they may stay away for as long as the
// journals can be kept, but a start that waits looks like one that works.
func (m *Master) whileStarting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.opts.StartTimeout, m.noAnswer())
}

func (m *Master) noAnswer() error {
	return fmt.Errorf("%w: no useful answer within %v, geth was not started: look at the brokers' own logs",
		changelog.ErrBrokersUnreachable, m.opts.StartTimeout)
}

// survey makes sure of the topic, looks at its end and at the database, and decides where to go on. live says that a
// geth that is not ours may have the database open.
func (m *Master) survey(ctx context.Context, log *changelog.Log, live bool) (survey, error) {
	ctx, cancel := m.whileStarting(ctx)
	defer cancel()
	var findings []changelog.Finding
	if !m.opts.DryRun {
		var err error
		if _, findings, err = log.Ensure(ctx, m.opts.Topic); err != nil {
			return survey{}, err
		}
	}
	for _, finding := range findings {
		if finding.Fatal {
			return survey{}, fmt.Errorf("%w: topic %s: %v", ErrUsage, log.Topic(), finding)
		}
		m.log.Warn("the topic promises less than it should", "finding", finding.String())
	}
	tail, err := log.Tail(ctx)
	if m.opts.DryRun && errors.Is(err, changelog.ErrNoTopic) {
		tail, err = changelog.Tail{Empty: true}, nil
	}
	if err != nil {
		return survey{}, err
	}
	if tail.Damaged != nil {
		return survey{}, tail.Damaged
	}
	src, err := m.inspect(live)
	if err != nil {
		return survey{}, err
	}
	asked := askNothing
	switch {
	case m.opts.Takeover:
		asked = askTakeover
	case m.opts.Rebase:
		asked = askRebase
	}
	at, err := decide(m.opts.Cluster, tail, src, asked)
	if err != nil {
		return survey{}, err
	}
	if err := m.sameChain(&at); err != nil {
		return survey{}, err
	}
	found := survey{plan: at, tail: tail, source: src}
	if needsReplay := at.action == takeover || at.action == recovery; needsReplay && m.opts.Replay == nil {
		return found, fmt.Errorf("%w: it ends at sequence %d, the change log at %d, and this master was given no way to replay", chaindata.ErrBehind,
			src.sequence, tail.Sequence)
	}
	return found, nil
}

// tell announces what is out of the ordinary.
func (m *Master) tell(found survey) {
	if m.opts.Takeover || m.opts.Rebase || found.plan.action == recovery {
		fmt.Fprint(m.opts.Stdout, m.announce(found))
	}
}

// preview writes what Run would do. It takes no lock and creates no topic, so that it can be asked while others work on
// the database.
func (m *Master) preview(ctx context.Context) error {
	if err := chaindata.CheckSource(m.opts.Chaindata); err != nil {
		return err
	}
	log, err := changelog.Open(ctx, m.opts.Kafka)
	if err != nil {
		return stopped(ctx, err)
	}
	defer log.Close()
	found, err := m.survey(ctx, log, m.opts.Attach)
	if err != nil {
		return stopped(ctx, err)
	}
	_, err = fmt.Fprint(m.opts.Stdout, m.announce(found))
	return err
}

// open starts the session that the survey asks for.
func (m *Master) open(ctx context.Context, log *changelog.Log, found survey, unlock *func()) (*session, error) {
	switch found.plan.action {
	case takeover, recovery:
		return m.takeOver(ctx, log, found, unlock)
	case rebase:
		if err := m.listen(ctx, log, found); err != nil {
			return nil, err
		}
		if err := clearSpool(m.opts.SpoolDir); err != nil {
			return nil, err
		}
		if err := syncDatabase(m.opts.Chaindata); err != nil {
			return nil, err
		}
		return m.reBase(ctx, log, found)
	}
	return m.openTimeline(ctx, log, found)
}

// openTimeline marks the database as the source and starts the session; on an empty topic its first frame opens the
// timeline.
func (m *Master) openTimeline(ctx context.Context, log *changelog.Log, found survey) (*session, error) {
	at := found.plan
	m.setGenesis(at.genesis)
	// The marker first: a timeline on the topic whose source nobody knows could not be gone on with.
	if err := m.mark(at.timeline); err != nil {
		return nil, err
	}
	options := m.opts.Publisher
	options.Tail = found.tail
	s := m.openSession(ctx, log.NewPublisher(options), at)
	if at.start == nil {
		m.log.Info("going on", "timeline", at.timeline, "behind", at.last)
		return s, nil
	}
	m.log.Info("new timeline", "timeline", at.timeline, "base", at.last)
	return s, nil
}

// inspect collects what decide needs to know of the database.
func (m *Master) inspect(live bool) (source, error) {
	src := source{live: live}
	marker, err := chaindata.ReadMarker(m.opts.Chaindata)
	switch {
	case err == nil:
		src.marker, src.copied = &marker, !marker.MadeIn(m.opts.Chaindata)
	case !errors.Is(err, chaindata.ErrNoMarker):
		return src, err
	}
	state, err := chaindata.Inspect(m.opts.Chaindata)
	switch {
	case err == nil:
		src.sequence = state.Sequence
	case !errors.Is(err, chaindata.ErrNoDatabase):
		return src, err
	}
	return src, nil
}

// drainAtRest publishes what the journals hold beyond the topic and checks that this is all that the database has.
func (m *Master) drainAtRest(ctx context.Context, s *session) error {
	done := make(chan error, 1)
	go func() { done <- m.drain(s.work, s) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for drained := false; !drained; {
		var cause error
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			drained = true
		case <-ctx.Done():
			cause = context.Cause(ctx)
		case <-ticker.C:
			if s.pump.waiting() > m.opts.StartTimeout {
				cause = m.noAnswer()
			}
		}
		if cause != nil {
			s.cancel(cause)
			<-done
			return cause
		}
	}
	state, err := chaindata.Inspect(m.opts.Chaindata)
	if errors.Is(err, chaindata.ErrNoDatabase) {
		return nil
	}
	if err != nil {
		return err
	}
	// One sequence more may be the void one that goleveldb leaves at a restart (chaindata.State.Reopened); if it is not,
	// the follower says so at the next batch.
	if last, _, _ := s.pump.position(); state.Sequence > last+1 {
		return &chaindata.HoleError{Want: last + 1, Got: state.Sequence + 1, Journal: m.opts.Chaindata}
	}
	return nil
}

// stopped turns the error that a cancelled ctx caused into a clean end: nothing was started yet.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// sameChain holds the database's genesis against the topic's, and puts it into the plan, so that replicas of another chain
// are refused from the first frame on, also when geth never answers (`geth import` does not).
func (m *Master) sameChain(at *plan) error {
	genesis, err := chaindata.Genesis(m.opts.Chaindata)
	if err != nil || genesis == "" {
		return err
	}
	if at.genesis != "" && at.genesis != genesis {
		return fmt.Errorf("%w: the change log carries the chain with genesis %s, the database has %s: give this chain a cluster name of its own",
			changelog.ErrWrongCluster, at.genesis, genesis)
	}
	at.genesis = genesis
	if at.start != nil {
		at.start.Genesis = genesis
	}
	return nil
}

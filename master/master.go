// Package master runs the source side of a cluster: it starts stock geth (or attaches to one), reads every write that
// geth commits from the LevelDB journals, and publishes it to the change log, with heartbeats in between.
//
// DESIGN.md has the order of start and stop, and what happens at each failure.
package master

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/changelog"
)

// MemoryLimit is what the process of a master should pass to debug.SetMemoryLimit, in bytes: the collector lets the heap
// of a busy master grow to twice its live size, and the promise is 100 MB resident, of which up to 50 MB are the program
// itself. It is the process's to set, so this package does not. The environment variable GOMEMLIMIT is no substitute: geth
// inherits it and spends its time in the collector (measured: an import took twice as long).
const MemoryLimit = 40 << 20

// Master captures one geth. Make it with New, run it once.
type Master struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	geth    supervisor
	heads   *headTracker

	mu       sync.Mutex
	phase    string // what the Master is doing, for people
	session  *session
	timeline uint64
	genesis  string
	view     gethView
	up       bool // geth answered at the last look
	answered bool // geth has answered once
	follower follower
}

// New checks the options and registers the metrics. It touches neither disk nor network. Errors wrap ErrUsage.
func New(opts Options) (*Master, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	if err := changelog.CheckCluster(opts.Cluster); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	m := &Master{opts: opts, log: opts.Logger, heads: newHeadTracker(), phase: "starting"}
	m.metrics = newMetrics(opts.Registerer, m)
	return m, nil
}

// Run captures until ctx ends, geth ends or something fails, and leaves no geth behind. It returns nil after a clean
// stop and after a geth that ended with 0. Other errors: ErrUsage, ErrNotOurs, ErrUnpublished, *GethExitError;
// chaindata's ErrLocked, ErrUnsupportedSource, ErrHole, ErrCorruptJournal, ErrSpoolFull, ErrBehind, ErrReplaced;
// changelog's ErrFenced, ErrWrongCluster, ErrBrokersUnreachable and what Kafka refuses.
func (m *Master) Run(ctx context.Context) error {
	switch {
	case m.opts.DryRun:
		return m.preview(ctx)
	case m.opts.Attach:
		return m.runAttached(ctx)
	}
	return m.runSupervised(ctx)
}

// Status says what the Master is doing. Lag is that of the change log behind the journals.
func (m *Master) Status(context.Context) admin.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	status := admin.Status{
		Role: "master", Cluster: m.opts.Cluster, Timeline: m.timeline, Offset: -1,
		Safe: block(m.view.safe), Finalized: block(m.view.finalized), Head: block(m.view.head),
	}
	extra := Extra{Mode: "supervised", Phase: m.phase, GethVersion: m.view.version, Peers: m.view.peers, Syncing: m.view.syncing}
	if m.opts.Attach {
		extra.Mode = "attached"
	}
	if p := m.geth.get(); p != nil && p.alive() {
		extra.GethPID = p.pid
	}
	if m.follower != nil {
		extra.SpoolBytes = m.follower.SpoolBytes()
	}
	if m.session == nil {
		status.Reasons = []string{m.phase}
		status.Extra = extra
		return status
	}
	p := m.session.pump
	last, offset, head := p.position()
	status.Sequence, status.Offset = last, offset
	if head != nil {
		status.Head = block(head)
	}
	batches, _, oldest := p.queue.backlog()
	frames, seconds := int64(batches), 0.0
	if !oldest.IsZero() {
		seconds = time.Since(oldest).Seconds()
	}
	status.Lag = admin.Lag{Frames: &frames, Seconds: &seconds}
	if status.Head != nil && m.view.head != nil {
		status.Lag.Blocks = new(max(0, int64(m.view.head.Number)-int64(status.Head.Number)))
	}
	extra.Frames, extra.Bytes = p.totals()
	extra.OutageSeconds = m.outageLocked().Seconds()
	status.Reasons = m.reasons(extra)
	status.Ready = len(status.Reasons) == 0
	status.Extra = extra
	return status
}

// Extra is what a master's Status says besides the common fields.
type Extra struct {
	Mode          string  `json:"mode"`  // supervised or attached
	Phase         string  `json:"phase"` // starting, draining, capturing or stopping
	GethPID       int     `json:"gethPid,omitempty"`
	GethVersion   string  `json:"gethVersion,omitempty"`
	Peers         int     `json:"peers"`
	Syncing       bool    `json:"syncing"`
	Frames        int64   `json:"frames"`        // published since the start, heartbeats included
	Bytes         int64   `json:"bytes"`         // of journal records published since the start
	SpoolBytes    int64   `json:"spoolBytes"`    // journals kept until they are published
	OutageSeconds float64 `json:"outageSeconds"` // for how long the brokers have not answered
}

func (m *Master) reasons(extra Extra) []string {
	reasons := []string{}
	if m.phase != phaseCapturing {
		reasons = append(reasons, m.phase)
	}
	if extra.OutageSeconds > 0 {
		reasons = append(reasons, fmt.Sprintf("the brokers have not answered for %.0f s", extra.OutageSeconds))
	}
	if !m.aliveLocked() {
		reasons = append(reasons, "geth does not answer on "+m.opts.IPC)
	}
	if extra.Syncing {
		reasons = append(reasons, "geth is syncing")
	}
	return reasons
}

const (
	phaseListening = "listening for the old master"
	phaseReplaying = "replaying the change log before the takeover"
	phaseDraining  = "publishing what the journals still hold"
	phaseCapturing = "capturing"
	phaseStopping  = "stopping"
)

func block(ref *changelog.BlockRef) *admin.Block {
	if ref == nil {
		return nil
	}
	return &admin.Block{Number: ref.Number, Hash: ref.Hash, Time: ref.Time}
}

func (m *Master) setPhase(phase string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = phase
}

func (m *Master) setFollower(f follower) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follower = f
}

func (m *Master) attachSession(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session = s; s != nil {
		m.timeline = s.pump.timeline
	}
}

// noteView keeps geth's answer. A geth that stops answering keeps its last labels: they were true once and only move on.
func (m *Master) noteView(view gethView, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up = up; !up {
		return
	}
	m.view, m.answered = view, true
}

func (m *Master) lastView() gethView {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

func (m *Master) knownGenesis() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.genesis
}

func (m *Master) setGenesis(genesis string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.genesis = genesis
}

// sourceAlive says whether geth runs and answers. A geth of ours that has not answered yet is starting, or is one
// without IPC such as `geth import`, and counts as alive while its process is.
func (m *Master) sourceAlive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.aliveLocked()
}

func (m *Master) aliveLocked() bool {
	if m.opts.Attach {
		return m.up
	}
	p := m.geth.get()
	return p != nil && p.alive() && (m.up || !m.answered)
}

func (m *Master) currentTimeline() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.timeline
}

func (m *Master) sequence() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return 0
	}
	last, _, _ := m.session.pump.position()
	return last
}

func (m *Master) captureLag() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return 0
	}
	if _, _, oldest := m.session.pump.queue.backlog(); !oldest.IsZero() {
		return time.Since(oldest)
	}
	return 0
}

func (m *Master) spoolBytes() int64 {
	m.mu.Lock()
	f := m.follower
	m.mu.Unlock()
	if f == nil {
		return 0
	}
	return f.SpoolBytes()
}

func (m *Master) outage() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.outageLocked()
}

func (m *Master) outageLocked() time.Duration {
	if m.session == nil {
		return 0
	}
	if waiting := m.session.pump.waiting(); waiting > outageAfter {
		return waiting
	}
	return 0
}

package master

import (
	"context"
	"fmt"
	"time"

	"github.com/drover-io/drover/changelog"
)

// beat makes a heartbeat at once and then every interval.
func (m *Master) beat(ctx context.Context, s *session) {
	client := &ipcClient{path: m.opts.IPC}
	defer client.close()
	ticker := time.NewTicker(m.opts.HeartbeatInterval)
	defer ticker.Stop()
	for {
		if err := m.look(ctx, client); err != nil {
			s.fail(err)
		}
		if ctx.Err() != nil {
			return
		}
		s.pump.beat(m.heartbeat(s.pump))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look asks geth for its view. The error is one that must end the Master: geth serves another chain than the change
// log carries.
func (m *Master) look(ctx context.Context, client *ipcClient) error {
	if p := m.geth.get(); !m.opts.Attach && (p == nil || !p.alive()) {
		m.noteView(gethView{}, false)
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, max(m.opts.HeartbeatInterval, time.Second))
	defer cancel()
	view, err := queryGeth(limited, client)
	if err != nil {
		m.log.Debug("geth does not answer", "err", err)
		m.noteView(gethView{}, false)
		return nil
	}
	m.noteView(view, true)
	return m.noteGenesis(view.genesis)
}

// noteGenesis keeps the chain's genesis hash for the heartbeats. The error says that it is not the change log's.
func (m *Master) noteGenesis(genesis string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.genesis == "" {
		m.genesis = genesis
	}
	if genesis != "" && genesis != m.genesis {
		return fmt.Errorf("%w: the change log carries the chain with genesis %s, this geth has %s: "+
			"give this chain a cluster name of its own", changelog.ErrWrongCluster, m.genesis, genesis)
	}
	return nil
}

// heartbeat is the Master's view now. The pump puts the captured head in place of geth's where it knows one.
func (m *Master) heartbeat(p *pump) changelog.Heartbeat {
	view := m.lastView()
	batches, bytes, _ := p.queue.backlog()
	return changelog.Heartbeat{
		Cluster: m.opts.Cluster, Genesis: m.knownGenesis(), ChainID: view.chainID,
		Head: view.head, Safe: view.safe, Finalized: view.finalized,
		Peers: view.peers, Syncing: view.syncing, GethVersion: view.version, DatabaseVersion: view.databaseVersion,
		SourceAlive: m.sourceAlive(), CaptureLagBatches: int64(batches), CaptureLagBytes: int64(bytes),
		Interval: m.opts.HeartbeatInterval,
	}
}

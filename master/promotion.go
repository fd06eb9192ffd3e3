package master

import (
	"context"
	"time"

	"github.com/drover-io/drover/changelog"
)

// promotion is how the time of a takeover was spent.
type promotion struct {
	head *changelog.BlockRef // the old master's last

	began, listened, replayed, opened, started time.Time
}

const (
	promotionPoll = 50 * time.Millisecond
	// promotionLimit is how long the first block is waited for before the line is written without it.
	promotionLimit = time.Minute
)

// watchPromotion writes one line once geth has made or received a new block and it is on the topic. It also sends a
// heartbeat as soon as geth answers, since replicas are not ready before.
func (m *Master) watchPromotion(ctx context.Context, s *session, p *promotion) {
	client := &ipcClient{path: m.opts.IPC}
	defer client.close()
	ticker := time.NewTicker(promotionPoll)
	defer ticker.Stop()
	var answered, block time.Time
	for block.IsZero() && time.Since(p.started) < promotionLimit {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if answered.IsZero() && m.answersNow(ctx, client) {
			answered = time.Now()
			s.pump.beat(m.heartbeat(s.pump))
		}
		if _, _, head := s.pump.position(); head != nil && (p.head == nil || head.Hash != p.head.Hash) {
			block = time.Now()
		}
	}
	since := func(from, to time.Time) string {
		if to.IsZero() {
			return "not yet"
		}
		return to.Sub(from).Round(time.Millisecond).String()
	}
	m.log.Info("took over", "timeline", s.pump.timeline, "detect", since(p.began, p.listened), "drain", since(p.listened, p.replayed),
		"open", since(p.replayed, p.opened), "prepare", since(p.opened, p.started), "geth", since(p.started, answered),
		"firstBlock", since(p.started, block), "total", since(p.began, block))
}

func (m *Master) answersNow(ctx context.Context, client *ipcClient) bool {
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	view, err := queryGeth(limited, client)
	if err != nil {
		return false
	}
	m.noteView(view, true)
	return true
}

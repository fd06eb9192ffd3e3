package replica

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/drover-io/drover/admin"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Extra is what a replica adds to the common status.
type Extra struct {
	// Phase is starting, restoring, catching up, opening geth, live or stopped.
	Phase string `json:"phase"`
	// MasterHead is the master's head as the last heartbeat told it.
	MasterHead *admin.Block `json:"masterHead"`
	// Stale says why the data may be old; empty while it is fresh. It makes the replica not ready under --stale drain.
	Stale []string `json:"stale"`
	// ApplyDelayMillis is the time from the master's journal to geth's answer for the newest head, in milliseconds; it
	// needs clocks in step. nil while no head has come.
	ApplyDelayMillis *float64 `json:"applyDelayMillis"`
	// HTTP and WS are the addresses served on, empty while the ports are closed.
	HTTP string `json:"http"`
	WS   string `json:"ws"`
}

// Status implements admin.Source.
func (r *Replica) Status(context.Context) admin.Status {
	now := time.Now()
	s := r.status()
	out := admin.Status{
		Role: "replica", Cluster: r.opts.Cluster,
		Timeline: s.at.Timeline, Sequence: s.at.Sequence, Offset: s.at.Offset,
		Reasons: r.reasons(now),
	}
	out.Ready = len(out.Reasons) == 0
	r.mu.Lock()
	if g := r.geth; g != nil {
		out.Head, out.Safe, out.Finalized = block(g.head()), block(g.safe()), block(g.finalized())
	} else if s.bulkHead != (common.Hash{}) {
		out.Head = &admin.Block{Number: s.bulkNum, Hash: s.bulkHead.Hex()}
	}
	r.mu.Unlock()
	extra := Extra{Phase: s.phase.String(), Stale: append([]string{}, r.stale(&s, now)...), HTTP: r.HTTPAddr(), WS: r.WSAddr()}
	if s.headDelay > 0 {
		millis := float64(s.headDelay.Microseconds()) / 1000
		extra.ApplyDelayMillis = &millis
	}
	if hb := s.heartbeat; hb != nil && hb.Head != nil {
		extra.MasterHead = &admin.Block{Number: hb.Head.Number, Hash: hb.Head.Hash, Time: hb.Head.Time}
		if out.Head != nil {
			blocks := max(0, int64(hb.Head.Number)-int64(out.Head.Number))
			out.Lag.Blocks = &blocks
		}
	}
	if frames, ok := s.behind(); ok {
		out.Lag.Frames = &frames
		seconds := 0.0
		if frames > 0 && !s.frameTime.IsZero() {
			seconds = max(0, now.Sub(s.frameTime).Seconds())
		}
		if frames == 0 || !s.frameTime.IsZero() {
			out.Lag.Seconds = &seconds
		}
	}
	out.Extra = extra
	return out
}

func block(h *types.Header) *admin.Block {
	if h == nil {
		return nil
	}
	return &admin.Block{Number: h.Number.Uint64(), Hash: h.Hash().Hex(), Time: h.Time}
}

func (r *Replica) status() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// behind is the number of frames between the position and the topic's end.
func (s *state) behind() (int64, bool) {
	if s.highWater < 0 || s.at.Offset < 0 {
		return 0, false
	}
	return max(0, s.highWater-(s.at.Offset+1)), true
}

// reasons says why the replica is not ready; empty when it is.
func (r *Replica) reasons(now time.Time) []string {
	s := r.status()
	out := s.unfit()
	if r.opts.Stale == StaleDrain {
		out = append(out, r.stale(&s, now)...)
	}
	return out
}

// unfit says why the replica cannot answer for the change log, whatever the policy for stale data.
func (s *state) unfit() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if s.fatal != nil {
		add("stopped: %v", s.fatal)
	}
	if s.applyErr != nil {
		add("apply error: the database refuses writes: %v", s.applyErr)
	}
	switch {
	case s.phase == phasePreparing && s.prepared != "":
		add("%s a snapshot: %s", s.phase, s.prepared)
	case s.phase != phaseLive:
		add("%s", s.phase)
	}
	if frames, ok := s.behind(); !ok || frames > readyFrames {
		add("catching up: %d frames behind the topic's end", frames)
	}
	return out
}

// stale says why the data may be old although everything on the topic is applied.
func (r *Replica) stale(s *state, now time.Time) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	// By the master's clock, so that an old heartbeat that was read just now does not count as fresh.
	switch age := max(now.Sub(s.heartbeatTime), now.Sub(s.heartbeatAt)); {
	case s.heartbeat == nil:
		add("no heartbeat of the master yet")
	case age > r.opts.MaxHeartbeatAge:
		add("heartbeat age: the master's last word is %s old, limit %s (its clock and this one have to be in step)",
			age.Round(time.Second), r.opts.MaxHeartbeatAge)
	case !s.heartbeat.SourceAlive:
		add("the master's geth does not answer")
	case s.heartbeat.Syncing:
		add("master syncing")
	}
	if limit := r.opts.MaxHeadAge; limit > 0 && s.head != nil {
		if age := now.Sub(time.Unix(int64(s.head.Time), 0)); age > limit {
			add("head age: block %d is %s old, limit %s", s.head.Number, age.Round(time.Second), limit)
		}
	}
	return out
}

// markStale adds StaleHeader to answers while the data is stale.
func (r *Replica) markStale(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := r.status()
		if why := r.stale(&s, time.Now()); len(why) > 0 {
			w.Header().Set(StaleHeader, strings.Join(why, "; "))
		}
		next.ServeHTTP(w, req)
	})
}

// readyFrames is how many frames a ready replica may be behind: batches of a block come as a burst of a few frames, and
// readiness must not flap with each.
const readyFrames = 100

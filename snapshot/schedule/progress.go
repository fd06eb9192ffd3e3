package schedule

import (
	"sync/atomic"

	"github.com/drover-io/drover/snapshot"
)

// Progress is how far the run under way has come, for Status. A Backend of snapshot.Store tells it; others may.
type Progress struct {
	last atomic.Pointer[snapshot.Progress]
}

// Show takes the newest figures. It can be given as snapshot's Progress option.
func (p *Progress) Show(now snapshot.Progress) {
	if p != nil {
		p.last.Store(&now)
	}
}

func (p *Progress) get() *snapshot.Progress { return p.last.Load() }

func (p *Progress) reset() { p.last.Store(nil) }

package snapshot

import (
	"sync"
	"sync/atomic"
	"time"
)

// Progress is how far a long call has come. It is reported a few times a second, from one goroutine at a time, and once
// more at the end.
type Progress struct {
	Phase   string        // what is being done, in a word or two
	Done    int64         // bytes of the database dealt with; trie nodes while the state is walked
	Total   int64         // bytes in all as far as known yet, 0 when it is not
	Moved   int64         // bytes that went to or came from the store
	Rate    float64       // of Done, a second, lately
	Elapsed time.Duration // since the start
	Left    time.Duration // 0 when it cannot be told
}

// meter counts, and tells report about it.
type meter struct {
	done, total, moved atomic.Int64
	mu                 sync.Mutex
	phase              string
	start              time.Time
	report             func(Progress)
	samples            []sample // of the last seconds, for the rate
	stop, ended        chan struct{}
}

type sample struct {
	at   time.Time
	done int64
}

const (
	reportEvery = 200 * time.Millisecond
	rateOver    = 10 * time.Second
)

// newMeter reports until end is called; report may be nil.
func newMeter(phase string, report func(Progress)) *meter {
	m := &meter{phase: phase, start: time.Now(), report: report, stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		for {
			select {
			case <-m.stop:
				m.tell()
				return
			case <-time.After(reportEvery):
				m.tell()
			}
		}
	}()
	return m
}

func (m *meter) end() {
	close(m.stop)
	<-m.ended
}

// begin starts another phase, which counts from zero.
func (m *meter) begin(phase string, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase, m.samples = phase, nil
	m.done.Store(0)
	m.total.Store(total)
}

func (m *meter) tell() {
	if m.report == nil {
		return
	}
	m.mu.Lock()
	now := sample{time.Now(), m.done.Load()}
	m.samples = append(m.samples, now)
	for len(m.samples) > 2 && now.at.Sub(m.samples[0].at) > rateOver {
		m.samples = m.samples[1:]
	}
	p := Progress{Phase: m.phase, Done: now.done, Total: m.total.Load(), Moved: m.moved.Load(), Elapsed: now.at.Sub(m.start)}
	if span := now.at.Sub(m.samples[0].at); span > 0 {
		p.Rate = float64(now.done-m.samples[0].done) / span.Seconds()
	}
	m.mu.Unlock()
	if p.Rate > 0 && p.Total > p.Done {
		p.Left = time.Duration(float64(p.Total-p.Done) / p.Rate * float64(time.Second))
	}
	m.report(p)
}

package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// session is what a Master has while it may write to the topic: the pump and the goroutines around it.
type session struct {
	m    *Master
	pump *pump

	work     context.Context // outlives Run's context, because what geth wrote is published after the stop
	cancel   context.CancelCauseFunc
	failures chan error // the first error of any part; later ones follow from it

	pumpDone  chan struct{}
	pumpErr   error // valid once pumpDone is closed
	beatsDone chan struct{}
	stopBeats context.CancelFunc

	promotion *promotion // of a takeover
	watchers  sync.WaitGroup
}

// errSessionOver is the cause that a session's goroutines see when it is closed.
var errSessionOver = errors.New("the master is stopping")

func (m *Master) openSession(ctx context.Context, p publisher, at plan) *session {
	s := &session{
		m: m, pump: newPump(p, at.timeline, at.last, m.metrics),
		failures: make(chan error, 1), pumpDone: make(chan struct{}), beatsDone: make(chan struct{}),
	}
	s.work, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	var beating context.Context
	beating, s.stopBeats = context.WithCancel(s.work)
	m.attachSession(s)
	if at.start != nil {
		// Before the pump and the heartbeats run: a timeline's start is its first frame.
		s.pump.queue.putStart(changelog.StartFrame(at.timeline, *at.start, time.Now()), at.last)
	}
	go func() {
		defer close(s.pumpDone)
		if s.pumpErr = s.pump.run(s.work); s.pumpErr != nil {
			s.fail(s.pumpErr)
			s.cancel(s.pumpErr)
		}
	}()
	go func() {
		defer close(s.beatsDone)
		m.beat(beating, s)
	}()
	return s
}

// fail notes the first error.
func (s *session) fail(err error) {
	select {
	case s.failures <- err:
	default:
	}
}

// failure returns the first error noted, nil when there is none.
func (s *session) failure() error {
	select {
	case err := <-s.failures:
		return err
	default:
		return nil
	}
}

// finish publishes what is left after the source has stopped, then a last heartbeat. Somebody who asked for the stop waits
// for DrainTimeout; patient, for a source that ended by itself, goes on for as long as the brokers take something. The
// capture may be nil.
func (s *session) finish(c *capture, patient bool) error {
	expired, forget := s.drainLimit(patient)
	defer forget()
	if c != nil {
		c.stop()
		select {
		case <-c.done:
		case <-s.pumpDone:
		case <-expired:
			return s.unpublished()
		}
	}
	s.stopBeats()
	<-s.beatsDone
	s.pump.farewell(s.m.heartbeat(s.pump))
	s.pump.queue.close()
	select {
	case <-s.pumpDone:
		return s.pumpErr
	case <-expired:
		return s.unpublished()
	}
}

// drainLimit returns a channel that is closed when DrainTimeout has passed: from now on, or, if patient, since the brokers
// last took something.
func (s *session) drainLimit(patient bool) (expired <-chan struct{}, forget func()) {
	ctx, forget := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		tick := time.NewTicker(s.m.opts.DrainTimeout / 20)
		defer tick.Stop()
		since := time.Now()
		last, _, _ := s.pump.position()
		for time.Since(since) < s.m.opts.DrainTimeout {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if now, _, _ := s.pump.position(); patient && now != last {
				last, since = now, time.Now()
			}
		}
		close(over)
	}()
	return over, forget
}

func (s *session) unpublished() error {
	last, _, _ := s.pump.position()
	rest := ""
	if state, err := chaindata.Inspect(s.m.opts.Chaindata); err == nil && state.Sequence > last {
		rest = fmt.Sprintf(": sequences %d to %d", last+1, state.Sequence)
	}
	return fmt.Errorf("%w%s; the brokers did not take them within %v: they will be published at the next start, before geth runs",
		ErrUnpublished, rest, s.m.opts.DrainTimeout)
}

// close ends every goroutine of the session.
func (s *session) close() {
	s.stopBeats()
	s.cancel(errSessionOver)
	<-s.pumpDone
	<-s.beatsDone
	s.watchers.Wait()
	s.m.attachSession(nil)
}

package master

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// attachAttempts bounds how often the start of an empty topic is tried anew because geth rotated its journals away
// between the look at them and the links.
const attachAttempts = 20

// runAttached follows a geth that somebody else starts and stops.
func (m *Master) runAttached(ctx context.Context) error {
	unlockRole, err := m.lockRole()
	if err != nil {
		return err
	}
	defer unlockRole()
	if err := chaindata.CheckSource(m.opts.Chaindata); err != nil {
		return err
	}
	log, err := changelog.Open(ctx, m.opts.Kafka)
	if err != nil {
		return stopped(ctx, err)
	}
	defer log.Close()
	f, first, found, err := m.followLive(ctx, log)
	if err != nil {
		return stopped(ctx, err)
	}
	defer f.Close()
	m.setFollower(f)
	defer m.setFollower(nil)
	m.tell(found)
	open := m.openTimeline
	if found.plan.action == rebase {
		open = m.reBase
	}
	s, err := open(ctx, log, found)
	if err != nil {
		return stopped(ctx, err)
	}
	defer s.close()
	m.setPhase(phaseCapturing)

	c := m.newCapture(f, s.pump, new(chaindata.ArchiveCheck), s.fail)
	c.ahead = first
	c.start(s.work)
	return m.attend(ctx, s, c)
}

// attend waits for the first thing that ends the capture and publishes what is in the journals by then.
func (m *Master) attend(ctx context.Context, s *session, c *capture) error {
	var cause error
	select {
	case <-ctx.Done():
		m.log.Info("stopping; geth goes on: what it writes from now on is published at the next start if its journals are still there")
	case cause = <-s.failures:
		m.log.Error("capture ends", "err", cause)
	case <-c.follower.SpoolFull():
		cause = fmt.Errorf("%w: the brokers have not taken what geth wrote, and the journals kept for it are larger than %d bytes: "+
			"bring the brokers back or raise the limit, and start again before geth deletes its journals", chaindata.ErrSpoolFull, m.opts.SpoolLimit)
	}
	m.setPhase(phaseStopping)
	rest := s.finish(c, false)
	if cause != nil {
		return cause
	}
	if rest == nil {
		rest = s.failure()
	}
	return rest
}

// followLive decides where to go on in a database that is being written, and links its journals from there on. On an
// empty topic the base is the sequence seen a moment before the links; what came in between is in the journals, or the
// follower says that it is not, and then the look is repeated: nothing is published yet. first is what was read by that.
func (m *Master) followLive(ctx context.Context, log *changelog.Log) (f *chaindata.Follower, first []chaindata.Batch, found survey, err error) {
	for range attachAttempts {
		if found, err = m.survey(ctx, log, true); err != nil {
			return nil, nil, found, err
		}
		if f, err = m.follow(found.plan.last); err != nil {
			return nil, nil, found, err
		}
		if found.plan.start == nil {
			return f, nil, found, nil
		}
		batch, ok, err := f.TryNext()
		if err == nil {
			if ok {
				first = append(first, batch)
			}
			return f, first, found, nil
		}
		_ = f.Close()
		if !errors.Is(err, chaindata.ErrHole) {
			return nil, nil, found, err
		}
	}
	return nil, nil, found, fmt.Errorf("geth deletes its journals faster than they can be linked: %w", err)
}

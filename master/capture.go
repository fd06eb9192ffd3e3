package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// follower is the part of chaindata.Follower that a capture needs. Next is called by one goroutine, the others by any.
type follower interface {
	Next(ctx context.Context) (chaindata.Batch, error)
	Published(seq uint64)
	SourceStopped()
	SpoolBytes() int64
	SpoolFull() <-chan struct{}
	Close() error
}

// capture reads one follower into the pump until the source has stopped and everything is read.
type capture struct {
	follower follower
	pump     *pump
	archive  *chaindata.ArchiveCheck // nil: not checked
	heads    *headTracker
	genesis  func(string) error // told of the chain's genesis when it comes by
	report   func(error)        // told of an error that must stop the source
	ahead    []chaindata.Batch  // read before the capture began

	stopped chan struct{} // closed by stop
	done    chan struct{} // closed when run has returned
	err     error         // of run; valid once done is closed
}

func (m *Master) newCapture(f follower, p *pump, archive *chaindata.ArchiveCheck, report func(error)) *capture {
	return &capture{
		follower: f, pump: p, archive: archive, heads: m.heads, genesis: m.noteGenesis, report: report,
		stopped: make(chan struct{}), done: make(chan struct{}),
	}
}

// start runs the capture on a goroutine of its own until ctx ends or the source has stopped.
func (c *capture) start(ctx context.Context) {
	go func() {
		defer close(c.done)
		if c.err = c.run(ctx); c.err != nil {
			c.report(c.err)
		}
	}()
}

// stop says that the source has ended. What is in the journals is still read.
func (c *capture) stop() {
	close(c.stopped)
	c.follower.SourceStopped()
}

func (c *capture) next(ctx context.Context) (chaindata.Batch, error) {
	if len(c.ahead) > 0 {
		batch := c.ahead[0]
		c.ahead = c.ahead[1:]
		return batch, nil
	}
	return c.follower.Next(ctx)
}

func (c *capture) run(ctx context.Context) error {
	for {
		batch, err := c.next(ctx)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, chaindata.ErrSpoolFull):
			// Not final: once geth has stopped, the rest is read and published as far as the brokers let us.
			c.report(err)
			select {
			case <-c.stopped:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		default:
			return err
		}
		readAt := time.Now()
		if c.archive != nil {
			if err := c.archive.Observe(batch); err != nil {
				return err
			}
		}
		frames := changelog.SplitBatch(c.pump.timeline, batch.First, batch.Count, batch.Data, 0, readAt)
		it := item{
			frames: frames, bytes: len(batch.Data), last: batch.Last(), readAt: readAt,
			head: c.heads.observe(batch), published: c.follower.Published,
		}
		if c.heads.genesis != "" {
			if err := c.genesis(c.heads.genesis); err != nil {
				return err
			}
			c.heads.genesis = ""
		}
		if err := c.pump.queue.put(ctx, it); err != nil {
			return err
		}
	}
}

// drain publishes what the journals of a database at rest hold beyond the topic's last sequence.
func (m *Master) drain(ctx context.Context, s *session) error {
	from, _, _ := s.pump.position()
	f, err := m.follow(from)
	if err != nil {
		return err
	}
	defer f.Close()
	c := m.newCapture(f, s.pump, nil, func(error) {})
	c.stop()
	c.start(ctx)
	select {
	case <-c.done:
	case err := <-s.failures:
		return err
	}
	if c.err != nil {
		return fmt.Errorf("publishing what the journals still hold: %w", c.err)
	}
	if err := s.pump.flush(ctx); err != nil {
		return err
	}
	if last, _, _ := s.pump.position(); last > from {
		m.log.Info("published what the journals still held", "from", from+1, "to", last)
	}
	return nil
}

// follow opens a follower behind the sequence last.
func (m *Master) follow(last uint64) (*chaindata.Follower, error) {
	return chaindata.NewFollower(chaindata.FollowOptions{
		Dir: m.opts.Chaindata, From: last + 1, SpoolDir: m.opts.SpoolDir, SpoolLimit: m.opts.SpoolLimit, Logger: m.log,
	})
}

package master

import (
	"context"
	"sync"
	"time"

	"github.com/drover-io/drover/changelog"
)

// publisher is the part of changelog.Publisher that the pump needs. Publish returns after the brokers' answer, with
// the first frame's offset; it is called by one goroutine.
type publisher interface {
	Publish(ctx context.Context, frames []changelog.Frame) (base int64, err error)
}

// pump is the single publisher of a master: batches and heartbeats reach the topic through it, in one order, one
// produce request at a time.
type pump struct {
	publisher publisher
	queue     *queue
	timeline  uint64
	metrics   *metrics

	beats chan changelog.Heartbeat // mailbox of one: a newer heartbeat replaces one that waits

	mu      sync.Mutex
	bye     *changelog.Heartbeat // goes out behind everything else
	last    uint64               // last sequence acknowledged
	offset  int64                // of the last frame acknowledged, -1 unknown
	head    *changelog.BlockRef
	frames  int64     // acknowledged since the start, heartbeats included
	bytes   int64     // of journal records acknowledged since the start
	started time.Time // when the produce request under way began, zero when there is none
}

func newPump(p publisher, timeline, last uint64, metrics *metrics) *pump {
	return &pump{
		publisher: p, queue: newQueue(), timeline: timeline, metrics: metrics,
		beats: make(chan changelog.Heartbeat, 1), last: last, offset: -1,
	}
}

// beat hands over the next heartbeat. Its head is replaced by the captured one when that is known, so that a
// heartbeat never names a head whose writes stand behind it on the topic.
func (p *pump) beat(h changelog.Heartbeat) {
	for {
		select {
		case p.beats <- h:
			return
		default:
		}
		select {
		case <-p.beats:
		default:
		}
	}
}

// run publishes until the queue is closed and empty (nil), ctx ends or publishing fails for good.
func (p *pump) run(ctx context.Context) error {
	for {
		items, ended := p.queue.take()
		beat, hasBeat := p.takeBeat()
		if len(items) == 0 && !hasBeat {
			if ended {
				return p.sendFarewell(ctx)
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-p.queue.ready:
				continue
			case beat = <-p.beats:
				hasBeat = true
				items, _ = p.queue.take()
			}
		}
		if err := p.send(ctx, items, beat, hasBeat); err != nil {
			return err
		}
	}
}

// farewell sets the last heartbeat; call it before the queue is closed.
func (p *pump) farewell(h changelog.Heartbeat) {
	h.Stopping, h.CaptureLagBatches, h.CaptureLagBytes = true, 0, 0
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bye = &h
}

func (p *pump) sendFarewell(ctx context.Context) error {
	p.mu.Lock()
	bye := p.bye
	p.mu.Unlock()
	if bye == nil {
		return nil
	}
	return p.send(ctx, nil, *bye, true)
}

func (p *pump) takeBeat() (changelog.Heartbeat, bool) {
	select {
	case beat := <-p.beats:
		return beat, true
	default:
		return changelog.Heartbeat{}, false
	}
}

// send publishes the items and then the heartbeat in one go.
func (p *pump) send(ctx context.Context, items []item, beat changelog.Heartbeat, hasBeat bool) error {
	p.mu.Lock()
	last, head := p.last, p.head
	p.started = time.Now()
	p.mu.Unlock()
	var frames []changelog.Frame
	bytes, batches := 0, 0
	for _, it := range items {
		if len(it.frames) == 0 {
			continue
		}
		frames = append(frames, it.frames...)
		bytes, batches, last = bytes+it.bytes, batches+1, it.last
		if it.head != nil {
			head = it.head
		}
		if head != nil && head.Hash == "" {
			head = nil // a head whose header did not come by: geth's own answer has to do
		}
	}
	if hasBeat {
		if head != nil {
			beat.Head = head
		}
		frames = append(frames, changelog.HeartbeatFrame(p.timeline, last, beat, time.Now()))
	}
	base := int64(-1)
	if len(frames) > 0 {
		var err error
		if base, err = p.publisher.Publish(ctx, frames); err != nil {
			return err
		}
	}
	p.metrics.published(batches, bytes, p.waiting())
	p.acknowledged(items, last, head, base, len(frames), bytes)
	return nil
}

func (p *pump) acknowledged(items []item, last uint64, head *changelog.BlockRef, base int64, frames, bytes int) {
	p.mu.Lock()
	p.started = time.Time{}
	p.last, p.head = last, head
	p.frames += int64(frames)
	p.bytes += int64(bytes)
	if frames > 0 {
		p.offset = base + int64(frames) - 1
	}
	p.mu.Unlock()
	var published func(uint64)
	for _, it := range items {
		if it.published != nil {
			published = it.published
		}
	}
	if published != nil {
		published(last)
	}
	p.queue.release(items)
	for _, it := range items {
		if it.flushed != nil {
			close(it.flushed)
		}
	}
}

// flush waits until everything put before is acknowledged.
func (p *pump) flush(ctx context.Context) error {
	flushed := make(chan struct{})
	if err := p.queue.put(ctx, item{flushed: flushed}); err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// position is the last acknowledged sequence, the last frame's offset (-1 unknown) and the captured head.
func (p *pump) position() (last uint64, offset int64, head *changelog.BlockRef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.offset, p.head
}

// totals are the frames, and the bytes of journal records, acknowledged since the start.
func (p *pump) totals() (frames, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frames, p.bytes
}

// waiting says for how long the brokers have not answered the produce request under way.
func (p *pump) waiting() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started.IsZero() {
		return 0
	}
	return time.Since(p.started)
}

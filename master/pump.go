package master

import (
	"context"
	"sync"
	"time"

	"github.com/drover-io/drover/changelog"
)

// publisher is the part of changelog.Publisher that the pump needs. One goroutine encodes, another one sends what was
// encoded, in that order. Send returns after the brokers' answer, with the first frame's offset.
type publisher interface {
	Encode(ctx context.Context, frames []changelog.Frame) (r *changelog.Request, rest []changelog.Frame, err error)
	Send(ctx context.Context, r *changelog.Request) (base int64, err error)
}

// pump is the single publisher of a master: batches and heartbeats reach the topic through it, in one order, one
// produce request in flight and the next one compressed meanwhile.
type pump struct {
	publisher publisher
	queue     *queue
	timeline  uint64
	metrics   *metrics

	mu      sync.Mutex
	next    *changelog.Heartbeat // goes out with what is taken next
	bye     *changelog.Heartbeat // goes out behind everything else
	last    uint64               // last sequence acknowledged
	offset  int64                // of the last frame acknowledged, -1 unknown
	head    *changelog.BlockRef
	frames  int64     // acknowledged since the start, heartbeats included
	bytes   int64     // of journal records acknowledged since the start
	under   int       // parcels taken and not acknowledged
	started time.Time // when the brokers last gave an answer, or were first asked since they owe none; zero when they owe none
}

// parcel is what was taken from the queue at once, and a heartbeat behind it: one produce request, or several when
// batches are large.
type parcel struct {
	items   []item // without their frames
	frames  int
	batches int
	bytes   int // of journal records
	last    uint64
	head    *changelog.BlockRef
}

// letter is a request on its way from the encoder to the sender.
type letter struct {
	request *changelog.Request // nil: nothing to send
	parcel  *parcel            // acknowledged with this request; nil when more of it follows
}

func newPump(p publisher, timeline, last uint64, metrics *metrics) *pump {
	return &pump{publisher: p, queue: newQueue(), timeline: timeline, metrics: metrics, last: last, offset: -1}
}

// beat hands over the next heartbeat; it replaces one that still waits. Its head is replaced by the captured one when
// that is known, so that a heartbeat never names a head whose writes stand behind it on the topic.
func (p *pump) beat(h changelog.Heartbeat) {
	p.mu.Lock()
	p.next = &h
	p.mu.Unlock()
	notify(p.queue.ready)
}

// run publishes until the queue is closed and empty (nil), ctx ends or publishing fails for good.
func (p *pump) run(ctx context.Context) error {
	letters := make(chan letter)
	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sent := make(chan error, 1)
	go func() {
		err := p.sendAll(sending, letters)
		cancel(err)
		sent <- err
	}()
	err := p.encodeAll(sending, letters)
	if err != nil {
		cancel(err)
	}
	close(letters)
	if failed := <-sent; err == nil {
		err = failed
	}
	return err
}

// encodeAll turns what the queue holds into requests. While one is in flight, the next one is worth making only when it
// is full: what comes until the answer travels in it, too.
func (p *pump) encodeAll(ctx context.Context, letters chan<- letter) error {
	last, _, head := p.position()
	for {
		idle := p.idle()
		items, ended := p.queue.take(idle)
		var beat *changelog.Heartbeat
		switch {
		case ended:
			if beat = p.takeFarewell(); beat == nil {
				return nil
			}
		case idle || len(items) > 0:
			beat = p.takeBeat()
		}
		if len(items) == 0 && beat == nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-p.queue.ready:
			}
			continue
		}
		next, frames := p.pack(items, beat, last, head)
		last, head = next.last, next.head
		if err := p.encode(ctx, next, frames, letters); err != nil || ended {
			return err
		}
	}
}

// pack joins what goes out together: the items, and then the heartbeat.
func (p *pump) pack(items []item, beat *changelog.Heartbeat, last uint64, head *changelog.BlockRef) (*parcel, []changelog.Frame) {
	next := &parcel{items: items, last: last, head: head}
	var frames []changelog.Frame
	for i := range items {
		it := &items[i]
		if it.flushed != nil {
			continue
		}
		frames = append(frames, it.frames...)
		it.frames = nil // once they are compressed, their bytes must not wait for the answer
		next.bytes, next.batches, next.last = next.bytes+it.bytes, next.batches+1, it.last
		if it.head != nil {
			next.head = it.head
		}
		if next.head != nil && next.head.Hash == "" {
			next.head = nil // a head whose header did not come by: geth's own answer has to do
		}
	}
	if beat != nil {
		if next.head != nil {
			beat.Head = next.head
		}
		frames = append(frames, changelog.HeartbeatFrame(p.timeline, next.last, *beat, time.Now()))
	}
	next.frames = len(frames)
	p.mu.Lock()
	p.under++
	if p.started.IsZero() {
		p.started = time.Now()
	}
	p.mu.Unlock()
	return next, frames
}

// encode hands the parcel's requests to the sender.
func (p *pump) encode(ctx context.Context, next *parcel, frames []changelog.Frame, letters chan<- letter) error {
	for {
		var l letter
		if len(frames) > 0 {
			var err error
			if l.request, frames, err = p.publisher.Encode(ctx, frames); err != nil {
				return err
			}
		}
		if len(frames) == 0 {
			l.parcel = next
		}
		select {
		case letters <- l:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if l.parcel != nil {
			return nil
		}
	}
}

// sendAll sends until there are no more letters (nil) or one fails.
func (p *pump) sendAll(ctx context.Context, letters <-chan letter) error {
	for l := range letters {
		offset := int64(-1)
		if l.request != nil {
			base, err := p.publisher.Send(ctx, l.request)
			if err != nil {
				return err
			}
			offset = base + int64(len(l.request.Frames)) - 1
		}
		took := p.answered(l.parcel, offset)
		if l.parcel != nil {
			p.metrics.published(l.parcel.batches, l.parcel.bytes, took)
			p.release(l.parcel)
		}
	}
	return nil
}

// answered notes the brokers' answer, which acknowledges the parcel unless that is nil, and returns how long it took.
func (p *pump) answered(done *parcel, offset int64) (took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	took, p.started = now.Sub(p.started), now
	if done == nil {
		return took
	}
	if p.under--; p.under == 0 {
		p.started = time.Time{}
	}
	p.last, p.head = done.last, done.head
	p.frames += int64(done.frames)
	p.bytes += int64(done.bytes)
	if offset >= 0 {
		p.offset = offset
	}
	return took
}

// release tells everybody who waits for the parcel's acknowledgement.
func (p *pump) release(done *parcel) {
	var published func(uint64)
	for _, it := range done.items {
		if it.published != nil {
			published = it.published
		}
	}
	if published != nil {
		published(done.last)
	}
	p.queue.release(done.items)
	for _, it := range done.items {
		if it.flushed != nil {
			close(it.flushed)
		}
	}
	notify(p.queue.ready) // the brokers may be idle
}

// farewell sets the last heartbeat; call it before the queue is closed.
func (p *pump) farewell(h changelog.Heartbeat) {
	h.Stopping, h.CaptureLagBatches, h.CaptureLagBytes = true, 0, 0
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bye = &h
}

func (p *pump) takeFarewell() *changelog.Heartbeat {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bye
}

func (p *pump) takeBeat() (h *changelog.Heartbeat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, p.next = p.next, nil
	return h
}

// idle says whether the brokers owe no answer.
func (p *pump) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.under == 0
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

// waiting says for how long the brokers have owed an answer.
func (p *pump) waiting() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started.IsZero() {
		return 0
	}
	return time.Since(p.started)
}

package changelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Compression of the produce requests; readers need no setting.
type Compression string

// The compressions that every Kafka broker knows. The empty string means
// [DefaultCompression].
const (
	CompressionNone   Compression = "none"
	CompressionSnappy Compression = "snappy"
	CompressionLZ4    Compression = "lz4"
	CompressionZstd   Compression = "zstd"
)

// DefaultCompression holds where none is named: DESIGN.md has the figures.
const DefaultCompression = CompressionZstd

func (c Compression) codec() (kafka.Compression, error) {
	switch c {
	case "":
		return DefaultCompression.codec()
	case CompressionNone:
		return 0, nil
	case CompressionSnappy:
		return kafka.Snappy, nil
	case CompressionLZ4:
		return kafka.Lz4, nil
	case CompressionZstd:
		return kafka.Zstd, nil
	default:
		return 0, fmt.Errorf("compression %q: use none, snappy, lz4 or zstd", string(c))
	}
}

// PublisherOptions say how to publish.
type PublisherOptions struct {
	Compression Compression
	// Tail is what [Log.Tail] returned. Frames that somebody else wrote behind
	// it are looked at before the first own frame counts as published. Without
	// it (the zero Tail) the look begins at the topic's end at the first Publish.
	Tail Tail
	// OnForeign is called, if set, for each frame of another writer that is
	// found between the own frames, before it is judged.
	OnForeign func(Entry)
}

// requestOverhead is what a record batch adds to its frames at most: 61 bytes,
// and for each record a length, attributes, two deltas and three lengths.
const requestOverhead, recordOverhead = 128, 40

// maxRequestFrames bounds the frames of one request; tiny ones gain nothing more.
const maxRequestFrames = 4096

// Publisher writes frames: one produce request in flight, in order, each until
// the brokers acknowledged it (acks=all). One goroutine may Encode while another
// one sends what was encoded before it, in the order of encoding; State may be
// called by any.
type Publisher struct {
	l     *Log
	opts  PublisherOptions
	enc   *encoder
	fence fence
	limit int // bytes of a request, 0 before it is known

	mu    sync.Mutex
	state PublisherState
}

// PublisherState is what a status page shows.
type PublisherState struct {
	Offset      int64     // of the last acknowledged frame, -1 before the first
	Frames      uint64    // acknowledged
	Bytes       uint64    // of acknowledged frames, before compression
	OutageSince time.Time // when the brokers stopped acknowledging; zero when they do
	LastError   error     // of the outage
	Retries     uint64
}

// NewPublisher returns a Publisher. A wrong option is returned by the first Publish.
func (l *Log) NewPublisher(o PublisherOptions) *Publisher {
	p := &Publisher{l: l, opts: o, state: PublisherState{Offset: -1}}
	p.fence.init(o.Tail)
	return p
}

// State returns the publisher's state now.
func (p *Publisher) State() PublisherState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Publish writes the frames in order and returns the offset of the first, once
// all are acknowledged. It tries the same request again, for as long as ctx
// lives, when the brokers are away, a leader moves or replicas are missing; what
// it wrote twice by that, readers drop by the sequence. After an error it is
// unknown which frames are on the topic: they must be published again, from the
// first, before any other (again: readers drop what was there).
//
// Errors: the context's; [ErrFenced] when another writer's frames show up between
// ours; [ErrTruncated] when acknowledged frames are gone; [ErrNoTopic]; what
// Kafka refuses (rights, size), with what to change. Frames may be
// reused once it returned.
func (p *Publisher) Publish(ctx context.Context, frames []Frame) (base int64, err error) {
	if len(frames) == 0 {
		return -1, errors.New("changelog: nothing to publish")
	}
	base = -1
	for len(frames) > 0 {
		var r *Request
		if r, frames, err = p.Encode(ctx, frames); err != nil {
			return -1, err
		}
		first, err := p.Send(ctx, r)
		if err != nil {
			return -1, err
		}
		if base < 0 {
			base = first
		}
	}
	return base, nil
}

// Request is a produce request, encoded and compressed.
type Request struct {
	// Frames are its frames, without their payloads: those are in the encoded
	// bytes, and the caller may let go of them.
	Frames []Frame

	set  []byte // the record set
	size int    // bytes of the frames, before compression
}

// Encode makes a produce request of the leading frames, as many as it takes, and
// returns the rest. The first call asks the brokers how large a request may be,
// for as long as ctx lives.
func (p *Publisher) Encode(ctx context.Context, frames []Frame) (r *Request, rest []Frame, err error) {
	if err := p.prepare(ctx); err != nil {
		return nil, frames, err
	}
	n, size := p.fill(frames)
	set, err := p.enc.encode(frames[:n], size)
	if err != nil {
		return nil, frames, err
	}
	r = &Request{Frames: slices.Clone(frames[:n]), set: set, size: size}
	for i := range r.Frames {
		r.Frames[i].Payload = nil
	}
	if n == len(frames) {
		return r, nil, nil // an empty rest would hold on to the payloads
	}
	return r, frames[n:], nil
}

// prepare runs before the first request.
func (p *Publisher) prepare(ctx context.Context) error {
	if p.limit > 0 {
		return nil
	}
	enc, err := newEncoder(p.opts.Compression)
	if err != nil {
		return err
	}
	p.enc = enc
	if !p.fence.known {
		_, next, err := p.l.Bounds(ctx)
		if err != nil {
			return err
		}
		p.fence.expect(next)
	}
	limit, err := p.l.maxMessageBytes(ctx)
	if err != nil {
		return err
	}
	p.limit = limit
	return nil
}

// fill says how many frames the next request takes.
func (p *Publisher) fill(frames []Frame) (n, size int) {
	total := requestOverhead
	for n < len(frames) && n < maxRequestFrames {
		add := frames[n].EncodedLen() + recordOverhead
		if n > 0 && total+add > p.limit {
			break
		}
		total += add
		size += frames[n].EncodedLen()
		n++
		// A timeline start travels alone: when two masters open the same
		// timeline, the loser must know before it writes a batch.
		if frames[n-1].Kind == KindTimelineStart {
			break
		}
	}
	return n, size
}

// Send writes one request, as [Publisher.Publish] does, and looks at what came
// between it and the one before. It returns the offset of the first frame.
func (p *Publisher) Send(ctx context.Context, r *Request) (base int64, err error) {
	if err := p.fence.sending(r.Frames); err != nil {
		return -1, err
	}
	started := time.Now()
	base, err = p.produce(ctx, r.set)
	if err != nil {
		return -1, err
	}
	if err := p.fence.check(ctx, p.l, base, len(r.Frames), p.opts.OnForeign); err != nil {
		return -1, err
	}
	last := base + int64(len(r.Frames)) - 1
	m := p.l.metrics
	m.publishSeconds.Observe(time.Since(started).Seconds())
	m.publishedFrames.Add(float64(len(r.Frames)))
	m.publishedBytes.Add(float64(r.size))
	m.publishedOffset.Set(float64(last))
	p.mu.Lock()
	p.state.Offset = last
	p.state.Frames += uint64(len(r.Frames))
	p.state.Bytes += uint64(r.size)
	p.mu.Unlock()
	return base, nil
}

// produce sends one request until it is acknowledged.
func (p *Publisher) produce(ctx context.Context, set []byte) (base int64, err error) {
	out := outage{log: p.l.log, metrics: p.l.metrics, what: "publish"}
	defer func() {
		out.end(err == nil)
		p.outage(time.Time{}, nil, false)
	}()
	for b := newBackoff(); ; {
		base, err = p.produceOnce(ctx, set)
		if err == nil {
			return base, nil
		}
		if ctx.Err() != nil {
			return -1, fmt.Errorf("publish: %w", errors.Join(context.Cause(ctx), out.last))
		}
		if final := p.l.final(&out, "publish", err); final != nil {
			return -1, final
		}
		p.outage(out.since, err, true)
		p.l.metrics.publishRetries.Inc()
		p.l.refresh()
		if !b.wait(ctx) {
			return -1, fmt.Errorf("publish: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

func (p *Publisher) outage(since time.Time, err error, retry bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.OutageSince, p.state.LastError = since, err
	if retry {
		p.state.Retries++
	}
}

func (p *Publisher) produceOnce(ctx context.Context, set []byte) (int64, error) {
	res, err := p.l.producer.RawProduce(ctx, &kafka.RawProduceRequest{
		Topic: p.l.topic, Partition: partition, RequiredAcks: kafka.RequireAll,
		RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(set)},
	})
	if err != nil {
		return -1, err
	}
	if res.Error != nil {
		return -1, res.Error
	}
	return res.BaseOffset, nil
}

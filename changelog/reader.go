package changelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	// fetchBytes is asked for at a time; bufferBytes is fetched ahead at most,
	// plus one answer (a whole record batch can be larger).
	fetchBytes  = 4 << 20
	bufferBytes = 32 << 20
	// fetchWait is the long poll: what an idle reader costs is one request in
	// this time.
	fetchWait = 2 * time.Second
	// truncatedTries is how often an offset behind the topic's end is looked at
	// again before it counts as cut off: a new leader may lag for a moment.
	truncatedTries = 5
	stuckTries     = 5
)

// Reader reads the topic's messages in offset order, ahead of its user, on a
// goroutine of its own. It never jumps: an offset that is gone is an error.
type Reader struct {
	l      *Log
	cancel context.CancelFunc
	ready  chan []Entry
	done   chan struct{}
	err    error // set before done is closed

	mu       sync.Mutex
	buffered int
	room     chan struct{}

	batch []Entry
}

// NewReader returns a Reader that starts at offset. Close it. Nothing is checked
// here: what is wrong with the offset or topic, the first Next tells.
func (l *Log) NewReader(offset int64) *Reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reader{
		l: l, cancel: cancel,
		ready: make(chan []Entry, 64), done: make(chan struct{}), room: make(chan struct{}, 1),
	}
	go r.run(ctx, offset)
	return r
}

// Next returns the next entry, and waits for one as long as ctx lives. While the
// brokers are away it waits too (logged once). Entries fetched before an error
// come before it. Errors: [ErrNotRetained], [ErrTruncated], [ErrNoTopic],
// [ErrCorrupt], [ErrClosed], the context's. It must be called by one goroutine
// at a time; the entry's bytes belong to the caller.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	for len(r.batch) == 0 {
		select {
		case b := <-r.ready:
			r.batch = b
			continue
		default:
		}
		select {
		case b := <-r.ready:
			r.batch = b
		case <-r.done:
			select {
			case b := <-r.ready:
				r.batch = b
			default:
				return Entry{}, r.err
			}
		case <-ctx.Done():
			return Entry{}, context.Cause(ctx)
		}
	}
	e := r.batch[0]
	r.batch[0] = Entry{}
	r.batch = r.batch[1:]
	r.grow(-e.Size)
	return e, nil
}

// Buffered returns the entries that Next returns without waiting, as far as the
// answer at hand goes. A replica uses it to fill one LevelDB batch.
func (r *Reader) Buffered() int {
	if len(r.batch) == 0 {
		select {
		case b := <-r.ready:
			r.batch = b
		default:
		}
	}
	return len(r.batch)
}

// Close ends the reader and waits for its goroutine. Next then returns [ErrClosed].
func (r *Reader) Close() error {
	r.cancel()
	<-r.done
	r.mu.Lock()
	left := r.buffered
	r.mu.Unlock()
	r.grow(-left)
	return nil
}

func (r *Reader) grow(n int) {
	r.mu.Lock()
	r.buffered += n
	full := r.buffered >= bufferBytes
	r.mu.Unlock()
	r.l.metrics.readBuffered.Add(float64(n))
	if !full {
		select {
		case r.room <- struct{}{}:
		default:
		}
	}
}

// waitRoom waits until less than bufferBytes are buffered.
func (r *Reader) waitRoom(ctx context.Context) bool {
	for {
		r.mu.Lock()
		full := r.buffered >= bufferBytes
		r.mu.Unlock()
		if !full {
			return ctx.Err() == nil
		}
		select {
		case <-r.room:
		case <-ctx.Done():
			return false
		}
	}
}

func (r *Reader) run(ctx context.Context, offset int64) {
	defer close(r.done)
	c := cursor{l: r.l, next: offset, near: true, out: outage{log: r.l.log, metrics: r.l.metrics, what: "read"}}
	defer c.out.end(false)
	for r.waitRoom(ctx) {
		entries, err := c.fetch(ctx, fetchBytes, fetchWait)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			r.err = err
			return
		}
		if len(entries) == 0 {
			continue
		}
		size := 0
		for i := range entries {
			size += entries[i].Size
		}
		r.grow(size)
		select {
		case r.ready <- entries:
		case <-ctx.Done():
		}
	}
	r.err = fmt.Errorf("read %s: %w", r.l.topic, ErrClosed)
}

// cursor fetches entries in order and decides what a failure means.
type cursor struct {
	l         *Log
	next      int64
	out       outage
	truncated int
	near      bool // read from the replica of this rack
	stuck     int
}

// fetch returns the entries that come next; none after wait, and none after a
// failure that passes (it has then waited a little). An error is final.
func (c *cursor) fetch(ctx context.Context, maxBytes int64, wait time.Duration) ([]Entry, error) {
	a, err := c.l.fetchOnce(ctx, c.next, maxBytes, wait, c.near)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return nil, c.outOfRange(ctx)
	}
	if err != nil {
		if final := c.l.final(&c.out, "read "+c.l.topic, err); final != nil {
			return nil, final
		}
		c.l.refresh()
		c.pause(ctx)
		return nil, nil
	}
	c.out.end(true)
	c.truncated = 0
	c.l.metrics.highWater.Set(float64(a.highWater))
	if a.next == c.next {
		return nil, c.nothing(ctx, a)
	}
	c.stuck = 0
	entries := make([]Entry, len(a.messages))
	for i, m := range a.messages {
		e := &entries[i]
		*e = Entry{Offset: m.offset, HighWater: a.highWater, Missing: m.offset - c.next, Time: m.time, Size: len(m.value)}
		if e.Missing < 0 {
			return nil, fmt.Errorf("%w: offset %d came again behind %d", ErrCorrupt, m.offset, c.next-1)
		}
		if e.Frame, e.Err = Decode(m.value); e.Err != nil {
			e.Raw = m.value
		}
		c.next = m.offset + 1
	}
	c.next = a.next
	c.l.metrics.readFrames.Add(float64(len(entries)))
	c.l.metrics.readBytes.Add(float64(a.bytes))
	return entries, nil
}

// nothing handles an answer without a record at or behind the asked offset. At
// the topic's end that is a long poll that ran out; before it, it is a record
// batch that kafka-go took for cut off: it must not be asked for forever.
func (c *cursor) nothing(ctx context.Context, a answer) error {
	if c.next >= a.highWater {
		c.stuck = 0
		return nil
	}
	if c.stuck++; c.stuck >= stuckTries {
		return fmt.Errorf("%w: offset %d cannot be read, although the topic goes up to %d", ErrCorrupt, c.next, a.highWater)
	}
	c.pause(ctx)
	return nil
}

func (c *cursor) pause(ctx context.Context) {
	(&backoff{delay: min(2*time.Second, 100*time.Millisecond<<min(c.out.tries, 5))}).wait(ctx)
}

// outOfRange finds out on which side of the topic the offset lies.
func (c *cursor) outOfRange(ctx context.Context) error {
	first, next, err := c.l.Bounds(ctx)
	switch {
	case err != nil:
		return err
	case c.next < first:
		return &NotRetainedError{Position: Position{Cluster: c.l.opts.Cluster, Offset: c.next}, FirstOffset: first}
	case c.next > next:
		if c.truncated++; c.truncated >= truncatedTries {
			return fmt.Errorf("%w: offset %d was there, the topic %s now ends at %d: it lost messages (unclean leader election, deletion, another Kafka); nothing behind its end is applied",
				ErrTruncated, c.next, c.l.topic, next)
		}
	}
	c.l.refresh()
	c.pause(ctx)
	return nil
}

// ReadRange calls fn for the entries of offsets from (inclusive) to to
// (exclusive, at most the topic's end now), in order, and returns then. fn's
// error ends it and is returned. Entries with Err set are passed on too.
func (l *Log) ReadRange(ctx context.Context, from, to int64, fn func(Entry) error) error {
	first, next, err := l.Bounds(ctx)
	if err != nil {
		return err
	}
	if from < first {
		return &NotRetainedError{Position: Position{Cluster: l.opts.Cluster, Offset: from}, FirstOffset: first}
	}
	to = min(to, next)
	c := cursor{l: l, next: from, out: outage{log: l.log, metrics: l.metrics, what: "read"}}
	defer c.out.end(false)
	for c.next < to {
		entries, err := c.fetch(ctx, fetchBytes, fetchWait)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Offset >= to {
				return nil
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

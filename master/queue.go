package master

import (
	"context"
	"sync"
	"time"

	"github.com/drover-io/drover/changelog"
)

const (
	// queueBytes bounds what is read from the journals and not acknowledged by the brokers yet. Beyond it the journals
	// on disk are the buffer.
	queueBytes = 3 * requestBytes
	// requestBytes is the size at which one produce request is full. One request is in flight at a time, so this and
	// the brokers' answer time give the throughput. Under backlog it also decides how well a request compresses:
	// earlier versions of a trie node lie megabytes back (changelog/DESIGN.md). The one in flight and the one that is
	// compressed meanwhile are held compressed only; the third part of the queue is filled from the journals.
	requestBytes = 3 << 20
)

// item is one batch on its way to the topic, or a control frame, or a flush mark (no frames).
type item struct {
	frames    []changelog.Frame
	bytes     int
	last      uint64              // the last sequence on the topic once this item is
	readAt    time.Time           // when the batch was read from the journal
	head      *changelog.BlockRef // the head as of this batch, nil when it moves no head
	published func(last uint64)   // told after the acknowledgement; may be nil
	flushed   chan<- struct{}     // closed after everything before was acknowledged; may be nil
}

// queue joins one reader of journals with the pump. It is bounded by bytes; an item larger than the bound passes when
// nothing else is held.
type queue struct {
	mu     sync.Mutex
	items  []item
	held   int       // bytes waiting and in flight
	count  int       // items with frames, waiting and in flight
	oldest time.Time // readAt of the oldest of these
	closed bool
	ready  chan struct{} // for the pump: an item or the end has come, or the pump itself is idle
	space  chan struct{} // for the reader: bytes were released
}

func newQueue() *queue {
	return &queue{ready: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put waits until the item fits. It returns ctx's cause when ctx ends first.
func (q *queue) put(ctx context.Context, it item) error {
	for {
		q.mu.Lock()
		if q.held == 0 || q.held+it.bytes <= queueBytes {
			if q.count == 0 {
				q.oldest = it.readAt
			}
			if it.flushed == nil {
				q.count++
			}
			q.held += it.bytes
			q.items = append(q.items, it)
			q.mu.Unlock()
			notify(q.ready)
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.space:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// putStart puts the frame that opens a timeline.
func (q *queue) putStart(frame changelog.Frame, base uint64) {
	_ = q.put(context.Background(), item{frames: []changelog.Frame{frame}, last: base, readAt: frame.Time})
}

// take removes the items of the next produce request without waiting, and says whether the queue has ended. Unless
// anyway, it leaves them until they fill a request or no more will come: what comes meanwhile travels with them.
func (q *queue) take(anyway bool) (items []item, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.items) && (n == 0 || bytes+q.items[n].bytes <= requestBytes) {
		bytes += q.items[n].bytes
		n++
	}
	if full := n < len(q.items) || bytes >= requestBytes; !full && !anyway && !q.closed {
		return nil, false
	}
	items = append(items, q.items[:n]...)
	clear(q.items[:n]) // the batches' bytes must not live on in the array
	q.items = q.items[n:]
	return items, q.closed && len(items) == 0
}

// release gives the bytes of acknowledged items back to the reader.
func (q *queue) release(items []item) {
	q.mu.Lock()
	for _, it := range items {
		q.held -= it.bytes
		if it.flushed == nil {
			q.count--
		}
	}
	q.oldest = time.Time{}
	if len(q.items) > 0 {
		q.oldest = q.items[0].readAt
	}
	q.mu.Unlock()
	notify(q.space)
}

// close lets the pump end once it has published what waits.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	notify(q.ready)
}

// backlog is what is read and not acknowledged: batches, bytes, and since when the oldest waits (zero: nothing does).
func (q *queue) backlog() (batches, bytes int, oldest time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == 0 {
		return 0, 0, time.Time{}
	}
	return q.count, q.held, q.oldest
}

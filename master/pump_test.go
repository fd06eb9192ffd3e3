package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
)

// topicFake acknowledges when it is let.
type topicFake struct {
	allow   chan error // an answer for each produce request
	encoded atomic.Int32

	mu     sync.Mutex
	frames []changelog.Frame
}

func (p *topicFake) Encode(_ context.Context, frames []changelog.Frame) (*changelog.Request, []changelog.Frame, error) {
	p.encoded.Add(1)
	return &changelog.Request{Frames: frames}, nil, nil
}

func (p *topicFake) Send(ctx context.Context, r *changelog.Request) (int64, error) {
	select {
	case err := <-p.allow:
		if err != nil {
			return -1, err
		}
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	base := int64(len(p.frames))
	p.frames = append(p.frames, r.Frames...)
	return base, nil
}

func (p *topicFake) all() []changelog.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.frames)
}

func testItem(first uint64, size int, published func(uint64)) item {
	record := make([]byte, size)
	return item{
		frames: changelog.SplitBatch(1, first, 1, record, 0, time.Now()), bytes: size, last: first,
		readAt: time.Now(), published: published,
	}
}

func newTestPump(t *testing.T, p publisher) *pump {
	m, err := New(Options{Cluster: testCluster, Datadir: t.TempDir(), Attach: true})
	if err != nil {
		t.Fatal(err)
	}
	return newPump(p, 1, 0, m.metrics)
}

func TestQueueHoldsAtMostItsBytesWhateverTheBacklog(t *testing.T) {
	topic := &topicFake{allow: make(chan error)}
	p := newTestPump(t, topic)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	go func() { _ = p.run(ctx) }()
	const size, batches = 300_000, 100
	var mu sync.Mutex
	var told []uint64
	published := func(last uint64) { mu.Lock(); told = append(told, last); mu.Unlock() }
	put := make(chan int, batches)
	go func() {
		for i := range batches {
			if p.queue.put(ctx, testItem(uint64(i+1), size, published)) != nil {
				return
			}
			put <- i
		}
		p.queue.close()
	}()
	full := queueBytes / size
	until(t, "the queue is full", func() bool { return len(put) == full })
	if _, held, oldest := p.queue.backlog(); held > queueBytes || oldest.IsZero() {
		t.Errorf("holds %d bytes, oldest %v", held, oldest)
	}
	if last, _, _ := p.position(); last != 0 {
		t.Errorf("sequence %d counts as published before any answer", last)
	}
	close(topic.allow)
	until(t, "everything is published", func() bool { last, _, _ := p.position(); return last == batches })
	if _, held, oldest := p.queue.backlog(); held != 0 || !oldest.IsZero() {
		t.Errorf("empty queue holds %d bytes, oldest %v", held, oldest)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.IsSorted(told) || told[len(told)-1] != batches {
		t.Errorf("told of %v", told)
	}
}

func TestBatchLargerThanTheQueuePasses(t *testing.T) {
	topic := &topicFake{allow: make(chan error)}
	close(topic.allow)
	p := newTestPump(t, topic)
	go func() { _ = p.run(testContext(t)) }()
	if err := p.queue.put(testContext(t), testItem(1, queueBytes+1, nil)); err != nil {
		t.Fatal(err)
	}
	if err := p.flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if last, offset, _ := p.position(); last != 1 || offset != int64(len(topic.all()))-1 {
		t.Errorf("at sequence %d, offset %d", last, offset)
	}
}

func TestHeartbeatsStandBehindTheBatchesTheyCount(t *testing.T) {
	topic := &topicFake{allow: make(chan error)}
	p := newTestPump(t, topic)
	ended := make(chan error, 1)
	go func() { ended <- p.run(testContext(t)) }()
	for i := uint64(1); i <= 20; i++ {
		it := testItem(i, 400_000, nil)
		it.head = &changelog.BlockRef{Number: i, Hash: fmt.Sprint(i)}
		p.beat(changelog.Heartbeat{Head: &changelog.BlockRef{Number: 99, Hash: "from IPC, ahead of the stream"}})
		if i%3 == 0 {
			topic.allow <- nil
		}
		if err := p.queue.put(testContext(t), it); err != nil {
			t.Fatal(err)
		}
	}
	p.queue.close()
	close(topic.allow)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	next, beats := uint64(1), 0
	for _, f := range topic.all() {
		if f.First != next {
			t.Fatalf("%v with first sequence %d where %d comes next", f.Kind, f.First, next)
		}
		if f.Kind == changelog.KindBatch {
			next++
			continue
		}
		beats++
		h, err := f.Heartbeat()
		if err != nil {
			t.Fatal(err)
		}
		if next > 1 && h.Head.Number != next-1 {
			t.Errorf("a heartbeat behind sequence %d names head %d", next-1, h.Head.Number)
		}
	}
	if next != 21 || beats == 0 {
		t.Errorf("%d batches, %d heartbeats", next-1, beats)
	}
}

func TestNothingFollowsAPublishThatFailed(t *testing.T) {
	topic := &topicFake{allow: make(chan error, 2)}
	p := newTestPump(t, topic)
	topic.allow <- changelog.ErrFenced
	topic.allow <- nil
	for i := uint64(1); i <= 2; i++ {
		if err := p.queue.put(testContext(t), testItem(i, queueBytes/2, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.run(testContext(t)); !errors.Is(err, changelog.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if frames := topic.all(); len(frames) != 0 {
		t.Errorf("%d frames behind the failure", len(frames))
	}
	if last, _, _ := p.position(); last != 0 {
		t.Errorf("counts %d as published", last)
	}
}

func TestNextRequestIsEncodedWhileOneIsInFlightWhenItIsFull(t *testing.T) {
	topic := &topicFake{allow: make(chan error)}
	p := newTestPump(t, topic)
	go func() { _ = p.run(testContext(t)) }()
	put := func(seq uint64, size int) {
		t.Helper()
		if err := p.queue.put(testContext(t), testItem(seq, size, nil)); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 1000)
	until(t, "the first is encoded", func() bool { return topic.encoded.Load() == 1 })
	put(2, 1000)
	put(3, requestBytes/2)
	if n := topic.encoded.Load(); n != 1 {
		t.Errorf("%d requests encoded, the second although more would have travelled in it", n)
	}
	put(4, requestBytes/2)
	until(t, "the second is encoded before the first is answered", func() bool { return topic.encoded.Load() == 2 })
	if last, _, _ := p.position(); last != 0 {
		t.Errorf("sequence %d counts as published before any answer", last)
	}
	topic.allow <- nil
	until(t, "the first counts", func() bool { last, _, _ := p.position(); return last == 1 })
	topic.allow <- nil
	until(t, "the second counts", func() bool { last, _, _ := p.position(); return last == 3 })
	topic.allow <- nil
	until(t, "the third counts", func() bool { last, _, _ := p.position(); return last == 4 })
}

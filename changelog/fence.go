package changelog

import (
	"context"
	"errors"
	"fmt"
)

// fenceMemory is how many own batches, and how many foreign ones, are remembered
// for comparison.
const fenceMemory = 8192

// fence watches what lands on the topic between the publisher's own frames. The
// brokers' answer says where a request landed; offsets between the last one and
// this one were written by somebody else, or are an own retry.
type fence struct {
	known    bool
	next     int64  // the offset that the next request should get
	timeline uint64 // own
	last     uint64 // last sequence sent
	opened   bool   // an own timeline start was acknowledged
	opening  *Frame // the own start of the request in flight, or the one acknowledged

	recent ring // own batches: first sequence to checksum
	claims ring // foreign batches of the own timeline that we have not come to yet
}

func (f *fence) init(t Tail) {
	f.recent, f.claims = newRing(), newRing()
	if t.known {
		f.expect(t.Next)
	}
}

func (f *fence) expect(next int64) { f.next, f.known = next, true }

// sending notes the frames of the request that goes out now.
func (f *fence) sending(frames []Frame) error {
	for i := range frames {
		fr := &frames[i]
		if fr.Timeline > f.timeline {
			f.timeline, f.opened, f.opening = fr.Timeline, false, nil
			f.recent, f.claims = newRing(), newRing()
		}
		switch fr.Kind {
		case KindTimelineStart:
			f.opening = fr
			f.last = max(f.last, fr.First-1)
		case KindBatch:
			if crc, ok := f.claims.get(fr.First); ok && crc != fr.BatchCRC {
				return fmt.Errorf("%w: another writer on timeline %d published other data for sequence %d", ErrFenced, fr.Timeline, fr.First)
			}
			f.recent.put(fr.First, fr.BatchCRC)
			f.last = max(f.last, fr.Last())
		}
	}
	return nil
}

// check looks at the offsets between the last request and the one that landed at
// base with n frames.
func (f *fence) check(ctx context.Context, l *Log, base int64, n int, onForeign func(Entry)) error {
	if base < f.next {
		return fmt.Errorf("%w: frames up to offset %d were acknowledged, the next one got offset %d: the topic %s lost messages (unclean leader election or deletion); go on with --rebase",
			ErrTruncated, f.next-1, base, l.topic)
	}
	if base > f.next {
		err := l.ReadRange(ctx, f.next, base, func(e Entry) error { return f.judge(l, e, onForeign) })
		// What retention has taken already cannot be looked at; that it was
		// taken so soon means that nobody published for that long.
		if err != nil && !errors.Is(err, ErrNotRetained) {
			return err
		}
	}
	f.next = base + int64(n)
	f.opened = f.opened || f.opening != nil
	return nil
}

// judge decides about one frame that stands before the own request and was not
// counted as its own.
func (f *fence) judge(l *Log, e Entry, onForeign func(Entry)) error {
	fr := &e.Frame
	if crc, ok := f.recent.get(fr.First); e.Err == nil && fr.Kind == KindBatch && fr.Timeline == f.timeline && ok && crc == fr.BatchCRC {
		return nil // a retry of ours, or the same journal record from our predecessor
	}
	l.metrics.foreignFrames.Inc()
	if onForeign != nil {
		onForeign(e)
	}
	switch {
	case e.Err != nil:
		return fmt.Errorf("%w: offset %d was written by something else than a master: %w", ErrCorrupt, e.Offset, e.Err)
	case fr.Timeline > f.timeline:
		return fmt.Errorf("%w: offset %d: %s of timeline %d, this master is on timeline %d", ErrFenced, e.Offset, fr.Kind, fr.Timeline, f.timeline)
	case fr.Timeline < f.timeline:
		l.log.Warn("ignored a frame of an older timeline: its master should stop by itself", "offset", e.Offset, "timeline", fr.Timeline, "own", f.timeline)
		return nil
	}
	switch fr.Kind {
	case KindTimelineStart:
		// Of two that open the same timeline the first on the topic wins. An
		// acknowledged start of ours, or a timeline we resumed, came before.
		if f.opening == nil || f.opened || f.opening.BatchCRC == fr.BatchCRC {
			return nil
		}
		return fmt.Errorf("%w: offset %d: another master opened timeline %d first", ErrFenced, e.Offset, fr.Timeline)
	case KindBatch:
		if _, ok := f.recent.get(fr.First); ok {
			return fmt.Errorf("%w: offset %d: another writer on timeline %d published other data for sequence %d", ErrFenced, e.Offset, fr.Timeline, fr.First)
		}
		if fr.First > f.last {
			f.claims.put(fr.First, fr.BatchCRC)
		}
	}
	return nil
}

// ring is a map that forgets the oldest of fenceMemory entries.
type ring struct {
	crc   map[uint64]uint32
	order []uint64
	at    int
}

func newRing() ring { return ring{crc: make(map[uint64]uint32)} }

func (r *ring) get(first uint64) (uint32, bool) {
	crc, ok := r.crc[first]
	return crc, ok
}

func (r *ring) put(first uint64, crc uint32) {
	if _, ok := r.crc[first]; ok {
		r.crc[first] = crc
		return
	}
	if len(r.order) < fenceMemory {
		r.order = append(r.order, first)
	} else {
		delete(r.crc, r.order[r.at])
		r.order[r.at] = first
		r.at = (r.at + 1) % fenceMemory
	}
	r.crc[first] = crc
}

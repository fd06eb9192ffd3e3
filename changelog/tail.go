package changelog

import (
	"context"
	"errors"
	"fmt"
)

// Tail is the end of the topic, as a master that starts needs it.
type Tail struct {
	// Empty: the topic holds no frame. Next is above 0 if it once did.
	Empty    bool
	First    int64  // first retained offset
	Next     int64  // offset that the next message gets
	Timeline uint64 // the newest
	// Newest is the highest timeline of any start near the end, those that are
	// void included (see [TimelineStart.Missed]); a new one has to be above it.
	Newest uint64
	// Sequence is the last one that is wholly on the topic: everything up to it
	// is published, a batch of which parts are missing is not counted.
	Sequence uint64
	// Heartbeat and Start are the newest of the timeline near the end; at least
	// one is set unless retention took both.
	Heartbeat *Heartbeat
	Start     *TimelineStart
	// Damaged says that a message near the end is no frame: replicas stop there.
	Damaged error

	known bool
}

// Genesis returns the chain's genesis hash as the newest heartbeat or timeline
// start tells it; empty when unknown.
func (t *Tail) Genesis() string {
	if t.Heartbeat != nil && t.Heartbeat.Genesis != "" {
		return t.Heartbeat.Genesis
	}
	if t.Start != nil {
		return t.Start.Genesis
	}
	return ""
}

// pages is how the searches see the topic; tests put a list in its place.
type pages interface {
	// bounds returns the first retained and the next offset.
	bounds(ctx context.Context) (first, next int64, err error)
	// page returns entries from offset on in order: at least one, unless offset
	// is the topic's end, and more as far as they come for free.
	page(ctx context.Context, offset int64, maxBytes int64) ([]Entry, error)
	cluster() string
}

type logPages struct{ l *Log }

func (p logPages) cluster() string { return p.l.opts.Cluster }

func (p logPages) bounds(ctx context.Context) (int64, int64, error) { return p.l.Bounds(ctx) }

func (p logPages) page(ctx context.Context, offset int64, maxBytes int64) ([]Entry, error) {
	c := cursor{l: p.l, next: offset, out: outage{log: p.l.log, metrics: p.l.metrics, what: "search"}}
	defer c.out.end(true)
	for {
		entries, err := c.fetch(ctx, maxBytes, fetchWait)
		if err != nil || len(entries) > 0 {
			return entries, err
		}
		if _, next, err := p.l.Bounds(ctx); err != nil || c.next >= next {
			return nil, err
		}
	}
}

const (
	// probeBytes is asked for by one step of a search, scanBytes where a range
	// is read through.
	probeBytes = 64 << 10
	scanBytes  = 4 << 20
	// tailBytes is read at least: a paused master that wakes on an older
	// timeline writes one request (of at most DefaultMaxMessageBytes) before it
	// notices, and that may come twice.
	tailBytes = 2 * DefaultMaxMessageBytes
	tailSpan  = 256
)

// Tail reads the end of the topic. It reads backwards in growing steps until it
// knows the newest timeline, the last wholly published sequence and a heartbeat
// or start. Errors: [ErrNoTopic], [ErrWrongCluster], the context's.
func (l *Log) Tail(ctx context.Context) (Tail, error) {
	return findTail(ctx, logPages{l})
}

func findTail(ctx context.Context, p pages) (Tail, error) {
	for try := 0; ; try++ {
		tail, err := tailOnce(ctx, p)
		// Retention went past where the reading began: what is left is nearer to the end.
		if try < 3 && errors.Is(err, ErrNotRetained) {
			continue
		}
		return tail, err
	}
}

func tailOnce(ctx context.Context, p pages) (Tail, error) {
	first, next, err := p.bounds(ctx)
	if err != nil {
		return Tail{}, err
	}
	if first == next {
		return Tail{Empty: true, First: first, Next: next, known: true}, nil
	}
	for span := int64(tailSpan); ; span *= 4 {
		from := max(first, next-span)
		s := tailScan{tail: Tail{First: first, Next: next, known: true}}
		for at := from; at < next; {
			entries, err := p.page(ctx, at, scanBytes)
			if err != nil {
				return Tail{}, err
			}
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				if e.Offset >= next {
					break
				}
				if err := s.add(p.cluster(), e); err != nil {
					return Tail{}, err
				}
			}
			at = entries[len(entries)-1].Offset + 1
		}
		if from == first || s.settled() {
			s.tail.Empty = s.tail.Timeline == 0 && s.tail.Damaged == nil
			return s.tail, nil
		}
	}
}

// tailScan walks a stretch of the topic up to its end.
type tailScan struct {
	tail  Tail
	known bool // Sequence is
	bytes int
	cuts  map[cut]uint32 // parts seen in order from the first
	// unclear is the last sequence of a batch whose first parts lie before the
	// stretch.
	unclear uint64
	// doubt: a start landed elsewhere than expected, and whether it is void is
	// told by what lies before the stretch.
	doubt bool
}

type cut struct {
	first      uint64
	crc, parts uint32
}

func (s *tailScan) settled() bool {
	return s.known && !s.doubt && s.unclear <= s.tail.Sequence && s.bytes >= tailBytes && (s.tail.Heartbeat != nil || s.tail.Start != nil)
}

func (s *tailScan) reached(seq uint64) {
	s.known = true
	s.tail.Sequence = max(s.tail.Sequence, seq)
}

func (s *tailScan) add(cluster string, e Entry) error {
	s.bytes += e.Size
	if e.Err != nil {
		s.tail.Damaged = fmt.Errorf("%w: offset %d: %w", ErrCorrupt, e.Offset, e.Err)
		return nil
	}
	f := &e.Frame
	s.tail.Newest = max(s.tail.Newest, f.Timeline)
	if f.Timeline < s.tail.Timeline || s.void(e) {
		return nil
	}
	if f.Timeline > s.tail.Timeline {
		t := s.tail
		*s = tailScan{bytes: s.bytes, doubt: s.doubt, cuts: make(map[cut]uint32),
			tail: Tail{First: t.First, Next: t.Next, Damaged: t.Damaged, Newest: t.Newest, Timeline: f.Timeline, known: true}}
	}
	var err error
	name := cluster
	switch f.Kind {
	case KindHeartbeat:
		if s.tail.Heartbeat, err = f.Heartbeat(); err == nil {
			name = s.tail.Heartbeat.Cluster
		}
		s.reached(f.First - 1)
	case KindTimelineStart:
		if s.tail.Start, err = f.Start(); err == nil {
			name = s.tail.Start.Cluster
		}
		s.reached(f.First - 1)
	case KindBatch:
		s.batch(f)
	}
	if err != nil {
		s.tail.Damaged = fmt.Errorf("%w: offset %d: %w", ErrCorrupt, e.Offset, err)
		return nil
	}
	if name != cluster {
		return fmt.Errorf("%w: the topic's offset %d is of cluster %q, not %q; check --cluster and --kafka.brokers", ErrWrongCluster, e.Offset, name, cluster)
	}
	return nil
}

// void says that the entry is a timeline start that counts for nobody.
func (s *tailScan) void(e Entry) bool {
	if e.Frame.Kind != KindTimelineStart {
		return false
	}
	st, err := e.Frame.Start()
	if err != nil || st.Offset == 0 || st.Offset == e.Offset {
		return false
	}
	if !s.known {
		s.doubt = true
	}
	return st.Missed(e.Offset, s.tail.Timeline, s.tail.Sequence)
}

func (s *tailScan) batch(f *Frame) {
	// A batch is begun only when everything before it was acknowledged.
	s.reached(f.First - 1)
	if f.Parts == 1 {
		s.reached(f.Last())
		return
	}
	c := cut{first: f.First, crc: f.BatchCRC, parts: f.Parts}
	switch have, ok := s.cuts[c]; {
	case f.Part == have+1:
		s.cuts[c] = f.Part
		if f.Part == f.Parts {
			s.reached(f.Last())
		}
	case !ok:
		s.unclear = max(s.unclear, f.Last())
	}
}

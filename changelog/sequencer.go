package changelog

import (
	"fmt"
	"hash/crc32"
	"time"
)

const (
	// maxAttempts bounds the attempts at one cut batch that are assembled side
	// by side. Two happen when a master restarts with another part size while
	// an answer to its predecessor is on the way; more would be a fault.
	maxAttempts = 4
	// maxBatch bounds an assembled batch, bytes. goleveldb cannot write a
	// journal record this large.
	maxBatch = 2 << 30
)

// Entry is one message of the topic, as a [Reader] returns it.
type Entry struct {
	Offset int64
	// HighWater is the offset behind the topic's last message when this entry
	// was fetched: the entry is the newest if Offset+1 == HighWater.
	HighWater int64
	// Missing is the number of offsets between the entry before and this one
	// that hold nothing. Kafka leaves such holes for transactions and
	// compaction, which a change log has not; the [Sequencer] decides by
	// sequence whether anything was lost.
	Missing int64
	Frame   Frame
	Time    time.Time // Kafka's timestamp of the message
	Size    int       // bytes of the message
	Raw     []byte    // the message, set when Err is
	// Err says why the message is not a frame ([ErrBadFrame],
	// [ErrFutureVersion]); Frame is then empty. The Sequencer refuses such an
	// entry, `drover log inspect` prints it and goes on.
	Err error
}

// EventKind says what an [Event] carries.
type EventKind uint8

// The kinds of events.
const (
	// EventNone: nothing to do (a duplicate, a stale frame, a part of a batch).
	EventNone EventKind = iota
	// EventBatch: apply Record, and Position with it.
	EventBatch
	// EventHeartbeat: the master's view.
	EventHeartbeat
	// EventTimelineStart: Position is on a new timeline; store it.
	EventTimelineStart
)

// Event is what an entry means to a replica.
type Event struct {
	Kind   EventKind
	Record []byte // the whole journal record
	First  uint64
	Count  uint32
	// Position is where the database stands once the event is applied. It may
	// be stored after any event, EventNone included: reading on from behind its
	// Offset misses nothing.
	Position  Position
	HighWater int64
	Heartbeat *Heartbeat
	Start     *TimelineStart
	Time      time.Time // when the master made the frame
}

// Sequencer turns entries into events. It upholds I1 (batches in order, each
// once, a hole is an error) and I4 (stale timelines are ignored). It does no I/O
// and must be used by one goroutine at a time. After an error every call returns
// that error: nothing behind a hole is ever delivered.
type Sequencer struct {
	at       Position
	attempts []attempt
	err      error
	dropped  uint64
}

// attempt is one cut of the batch that comes next, being assembled.
type attempt struct {
	count, crc, parts uint32
	next              uint32 // the part that is due
	data              []byte
}

// NewSequencer returns a Sequencer for a database that stands at the position.
func NewSequencer(at Position) *Sequencer { return &Sequencer{at: at} }

// Position returns how far events were delivered.
func (s *Sequencer) Position() Position { return s.at }

// Dropped returns how many duplicate and stale frames were ignored.
func (s *Sequencer) Dropped() uint64 { return s.dropped }

// Next takes the next entry of the topic. Errors: [HoleError], [ErrCorrupt]
// (also wrapping [ErrBadFrame] or [ErrFutureVersion]), [ErrTimelineMismatch],
// [ErrWrongCluster]; all final.
func (s *Sequencer) Next(e Entry) (Event, error) {
	if s.err != nil {
		return Event{}, s.err
	}
	ev, err := s.step(e)
	if err != nil {
		s.err = err
		return Event{}, err
	}
	// While parts of a batch are collected the position stays in front of them.
	if len(s.attempts) == 0 {
		s.at.Offset = e.Offset
	}
	ev.Position = s.at
	ev.HighWater = e.HighWater
	ev.Time = e.Frame.Time
	return ev, nil
}

func (s *Sequencer) step(e Entry) (Event, error) {
	f := &e.Frame
	if e.Err != nil {
		return Event{}, fmt.Errorf("%w: offset %d (position: %s): %w", ErrCorrupt, e.Offset, s.at, e.Err)
	}
	switch {
	case f.Timeline < s.at.Timeline:
		return s.drop()
	case f.Timeline > s.at.Timeline && f.Kind != KindTimelineStart:
		return Event{}, fmt.Errorf("%w: offset %d: %s of timeline %d, but no start of that timeline came before (position: %s)",
			ErrCorrupt, e.Offset, f.Kind, f.Timeline, s.at)
	}
	switch f.Kind {
	case KindBatch:
		return s.batch(e)
	case KindHeartbeat:
		return s.heartbeat(e)
	case KindTimelineStart:
		return s.start(e)
	default:
		return Event{}, fmt.Errorf("%w: offset %d: %s", ErrCorrupt, e.Offset, f.Kind)
	}
}

func (s *Sequencer) drop() (Event, error) {
	s.dropped++
	return Event{Kind: EventNone}, nil
}

func (s *Sequencer) hole(e Entry, format string, args ...any) error {
	h := &HoleError{Position: s.at, Offset: e.Offset, Want: s.at.Sequence + 1, Got: e.Frame.First, Detail: fmt.Sprintf(format, args...)}
	if e.Missing > 0 {
		h.Detail = fmt.Sprintf("%d offsets before it hold no message; %s", e.Missing, h.Detail)
	}
	return h
}

func (s *Sequencer) batch(e Entry) (Event, error) {
	f := &e.Frame
	due := s.at.Sequence + 1
	switch {
	case f.Last() < due:
		return s.drop()
	case f.First > due:
		if len(s.attempts) > 0 {
			a := s.attempts[0]
			return Event{}, s.hole(e, "part %d of %d of the batch at sequence %d is missing", a.next, a.parts, due)
		}
		return Event{}, s.hole(e, "a batch is missing")
	case f.First < due:
		return Event{}, fmt.Errorf("%w: offset %d: batch %d to %d lies across the position (%s)", ErrCorrupt, e.Offset, f.First, f.Last(), s.at)
	}
	if f.Parts == 1 {
		return s.deliver(e, f.Payload)
	}
	return s.part(e)
}

// part adds one part to its attempt. A part of an attempt whose first part never
// came is a hole, unless another attempt at the same batch is under way: then
// that one completes, or the frame behind it shows the hole.
func (s *Sequencer) part(e Entry) (Event, error) {
	f := &e.Frame
	var a *attempt
	for i := range s.attempts {
		if t := &s.attempts[i]; t.count == f.Count && t.crc == f.BatchCRC && t.parts == f.Parts {
			a = t
		}
	}
	switch {
	case a == nil && f.Part == 1:
		if len(s.attempts) == maxAttempts {
			s.attempts = s.attempts[1:]
		}
		s.attempts = append(s.attempts, attempt{count: f.Count, crc: f.BatchCRC, parts: f.Parts, next: 1})
		a = &s.attempts[len(s.attempts)-1]
	case a == nil && len(s.attempts) > 0:
		return s.drop()
	case a == nil:
		return Event{}, s.hole(e, "part 1 of %d is missing, part %d came", f.Parts, f.Part)
	case f.Part < a.next:
		return s.drop()
	case f.Part > a.next:
		return Event{}, s.hole(e, "part %d of %d is missing, part %d came", a.next, a.parts, f.Part)
	}
	if len(a.data)+len(f.Payload) > maxBatch {
		return Event{}, fmt.Errorf("%w: offset %d: batch %d to %d is larger than %d bytes", ErrCorrupt, e.Offset, f.First, f.Last(), maxBatch)
	}
	if a.data == nil {
		// The cut is even: the first part tells the whole size, give or take.
		a.data = make([]byte, 0, min(maxBatch, len(f.Payload)*int(min(f.Parts, 64))))
	}
	a.data = append(a.data, f.Payload...)
	a.next++
	if a.next <= a.parts {
		return Event{Kind: EventNone}, nil
	}
	return s.deliver(e, a.data)
}

func (s *Sequencer) deliver(e Entry, record []byte) (Event, error) {
	f := &e.Frame
	if crc := crc32.Checksum(record, castagnoli); crc != f.BatchCRC {
		return Event{}, fmt.Errorf("%w: offset %d: batch %d to %d has checksum %08x, its frames say %08x: its %d parts do not add up",
			ErrCorrupt, e.Offset, f.First, f.Last(), crc, f.BatchCRC, f.Parts)
	}
	s.attempts = nil
	s.at.Sequence = f.Last()
	return Event{Kind: EventBatch, Record: record, First: f.First, Count: f.Count}, nil
}

// heartbeat makes a lost last frame visible: it says what should have come.
func (s *Sequencer) heartbeat(e Entry) (Event, error) {
	f := &e.Frame
	h, err := f.Heartbeat()
	if err != nil {
		return Event{}, fmt.Errorf("%w: offset %d: %w", ErrCorrupt, e.Offset, err)
	}
	if err := s.cluster(h.Cluster, e.Offset); err != nil {
		return Event{}, err
	}
	switch due := s.at.Sequence + 1; {
	case f.First > due:
		return Event{}, s.hole(e, "a heartbeat says that everything below was published")
	case f.First < due:
		return s.drop()
	}
	return Event{Kind: EventHeartbeat, First: f.First, Heartbeat: h}, nil
}

func (s *Sequencer) start(e Entry) (Event, error) {
	f := &e.Frame
	st, err := f.Start()
	if err != nil {
		return Event{}, fmt.Errorf("%w: offset %d: %w", ErrCorrupt, e.Offset, err)
	}
	if err := s.cluster(st.Cluster, e.Offset); err != nil {
		return Event{}, err
	}
	if st.Missed(e.Offset, s.at.Timeline, s.at.Sequence) {
		return s.drop()
	}
	if f.Timeline == s.at.Timeline {
		switch due := s.at.Sequence + 1; {
		case f.First > due:
			return Event{}, fmt.Errorf("%w: offset %d: timeline %d starts at sequence %d, behind this database's position (%s); it needs a snapshot that was taken since",
				ErrTimelineMismatch, e.Offset, f.Timeline, st.Base, s.at)
		case f.First < due:
			return s.drop()
		}
		return Event{Kind: EventTimelineStart, First: f.First, Start: st}, nil
	}
	joins := st.Reason != ReasonRebase && st.PreviousTimeline == s.at.Timeline
	if joins && st.PreviousSequence > s.at.Sequence {
		e.Frame.First = st.PreviousSequence + 1
		return Event{}, s.hole(e, "timeline %d starts behind sequence %d", f.Timeline, st.PreviousSequence)
	}
	if !joins || st.PreviousSequence != s.at.Sequence {
		return Event{}, fmt.Errorf("%w: offset %d: timeline %d (%s) goes on from timeline %d sequence %d, this database stands at %s; it needs a snapshot of timeline %d",
			ErrTimelineMismatch, e.Offset, f.Timeline, st.Reason, st.PreviousTimeline, st.PreviousSequence, s.at, f.Timeline)
	}
	s.attempts = nil
	s.at.Timeline, s.at.Sequence = f.Timeline, st.Base
	return Event{Kind: EventTimelineStart, First: f.First, Start: st}, nil
}

func (s *Sequencer) cluster(name string, offset int64) error {
	if s.at.Cluster == "" || name == s.at.Cluster {
		return nil
	}
	return fmt.Errorf("%w: offset %d is of cluster %q, this database is of %q; check --cluster and --kafka.brokers", ErrWrongCluster, offset, name, s.at.Cluster)
}

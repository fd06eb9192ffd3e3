package changelog

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"
)

// listPages is a topic in memory; it counts reads.
type listPages struct {
	name    string
	first   int64
	entries []Entry
	perPage int // entries that one read brings
	reads   int
	forget  func() // retention at work: called once, before the first page is read
}

func (p *listPages) cluster() string { return p.name }

func (p *listPages) bounds(context.Context) (int64, int64, error) {
	return p.first, p.first + int64(len(p.entries)), nil
}

func (p *listPages) page(_ context.Context, offset, maxBytes int64) ([]Entry, error) {
	p.reads++
	if p.forget != nil {
		p.forget()
		p.forget = nil
	}
	if offset < p.first {
		return nil, &NotRetainedError{Position: Position{Cluster: p.name, Offset: offset}, FirstOffset: p.first}
	}
	if offset > p.first+int64(len(p.entries)) {
		return nil, fmt.Errorf("offset %d is out of range", offset)
	}
	es := p.entries[offset-p.first:]
	n := p.perPage
	if maxBytes >= scanBytes {
		n = 1000
	}
	return es[:min(n, len(es))], nil
}

// trim drops what retention would: everything before offset.
func (p *listPages) trim(offset int64) {
	p.entries = p.entries[offset-p.first:]
	p.first = offset
}

func list(first int64, frames []Frame) *listPages {
	p := &listPages{name: "test", first: first, perPage: 1}
	for i, f := range frames {
		p.entries = append(p.entries, Entry{Offset: first + int64(i), Frame: f, Size: f.EncodedLen()})
	}
	return p
}

func testBatch(timeline, first uint64, count uint32, parts int) []Frame {
	rec := make([]byte, 10*parts)
	rec[0], rec[1] = byte(first), byte(first>>8)
	return SplitBatch(timeline, first, count, rec, 10, time.Unix(0, 0))
}

// testTopic makes a topic of about n frames with heartbeats, batches in parts and
// changes of timeline; noise adds requests that land again and stale writers.
func testTopic(r *rand.Rand, n int, noise bool) []Frame {
	var topic []Frame
	timeline, next := uint64(1), uint64(1)
	start := func(reason string) {
		topic = append(topic, StartFrame(timeline, TimelineStart{Cluster: "test", Reason: reason, PreviousTimeline: timeline - 1, PreviousSequence: next - 1, Base: next - 1}, time.Unix(0, 0)))
	}
	start(ReasonInitial)
	for len(topic) < n {
		switch k := r.IntN(100); {
		case k < 15:
			topic = append(topic, HeartbeatFrame(timeline, next-1, Heartbeat{Cluster: "test"}, time.Unix(0, 0)))
		case k == 15:
			old, oldNext := timeline, next
			timeline++
			start(ReasonTakeover)
			if noise {
				for range r.IntN(50) {
					topic = append(topic, testBatch(old, oldNext, 1, 1)...)
					oldNext++
				}
			}
		case k < 25 && noise && len(topic) > 30:
			from := len(topic) - 1 - r.IntN(25)
			topic = append(topic, topic[from:min(len(topic), from+1+r.IntN(8))]...)
		default:
			count := uint32(1 + r.IntN(4))
			topic = append(topic, testBatch(timeline, next, count, 1+r.IntN(20)/16*r.IntN(5))...)
			next += uint64(count)
		}
	}
	return topic
}

// positions runs a Sequencer over the topic and returns where it stood after each
// batch and start.
func positions(t *testing.T, p *listPages) (at []Position) {
	t.Helper()
	s := NewSequencer(Position{Cluster: "test", Timeline: 1, Offset: -1})
	at = append(at, s.Position())
	for _, e := range p.entries {
		ev, err := s.Next(e)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == EventBatch || ev.Kind == EventTimelineStart {
			at = append(at, ev.Position)
		}
	}
	return at
}

// joins says that a database at the position that reads from offset on gets all.
func joins(p *listPages, at Position, offset int64) error {
	s := NewSequencer(at)
	for _, e := range p.entries[offset-p.first:] {
		if _, err := s.Next(e); err != nil {
			return err
		}
	}
	return nil
}

func TestFindSequenceFindsWhereToReadOn(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		p := list(int64(r.IntN(1000)), testTopic(r, 50+r.IntN(3000), seed%2 == 0))
		p.perPage = 1 + r.IntN(3)*r.IntN(20)
		all := positions(t, p)
		end := all[len(all)-1]
		for range 40 {
			at := all[r.IntN(len(all))]
			p.reads = 0
			offset, err := findSequence(t.Context(), p, at)
			if err != nil {
				t.Fatalf("seed %d at %s: %v", seed, at, err)
			}
			if limit := 2*bits.Len(uint(len(p.entries))) + 12; p.reads > limit {
				t.Errorf("seed %d at %s: %d reads of %d entries", seed, at, p.reads, len(p.entries))
			}
			if err := joins(p, at, offset); err != nil {
				t.Fatalf("seed %d at %s: offset %d: %v", seed, at, offset, err)
			}
			// Not far before it either: what was applied is not read again.
			if e := p.entries[max(0, offset-p.first-1)]; at != end && at.Offset >= 0 && offset <= at.Offset-200 {
				t.Errorf("seed %d at %s: offset %d, long before (%+v)", seed, at, offset, e.Frame.Kind)
			}
			if got, err := join(t.Context(), p, at); err != nil || joins(p, at, got) != nil {
				t.Fatalf("seed %d: join at %s: offset %d, %v", seed, at, got, err)
			}
		}
	}
}

func TestFindSequenceReturnsPartOne(t *testing.T) {
	frames := append(testBatch(1, 1, 1, 1), testBatch(1, 2, 3, 5)...)
	frames = append(frames, testBatch(1, 5, 1, 1)...)
	p := list(7, frames)
	if offset, err := findSequence(t.Context(), p, Position{Cluster: "test", Timeline: 1, Sequence: 1, Offset: -1}); err != nil || offset != 8 {
		t.Errorf("offset %d, %v; part 1 is at 8", offset, err)
	}
	// Half of it on the topic yet.
	p = list(7, frames[:3])
	if offset, err := findSequence(t.Context(), p, Position{Cluster: "test", Timeline: 1, Sequence: 1, Offset: -1}); err != nil || offset != 8 {
		t.Errorf("half sent: offset %d, %v; part 1 is at 8", offset, err)
	}
	// Retention took part 1.
	p = list(7, frames)
	p.trim(9)
	if _, err := findSequence(t.Context(), p, Position{Cluster: "test", Timeline: 1, Sequence: 1, Offset: -1}); !errors.Is(err, ErrNotRetained) {
		t.Errorf("part 1 gone: %v", err)
	}
}

func TestFindSequenceReadsLittle(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, n := range []int{100, 10_000, 300_000} {
		p := list(0, testTopic(r, n, false))
		all := positions(t, p)
		most := 0
		for range 50 {
			p.reads = 0
			if _, err := findSequence(t.Context(), p, all[r.IntN(len(all))]); err != nil {
				t.Fatal(err)
			}
			most = max(most, p.reads)
		}
		t.Logf("%d frames: at most %d reads", n, most)
		if limit := bits.Len(uint(n)) + 4; most > limit {
			t.Errorf("%d frames: %d reads, want at most %d", n, most, limit)
		}
	}
}

func TestRetentionIsJudgedBySequence(t *testing.T) {
	var frames []Frame
	for seq := uint64(1); seq <= 50; seq++ {
		frames = append(frames, testBatch(1, seq, 1, 1)...)
		frames = append(frames, HeartbeatFrame(1, seq, Heartbeat{Cluster: "test"}, time.Unix(0, 0)))
	}
	p := list(0, frames)
	p.trim(41) // first retained: the heartbeat behind sequence 21
	at := func(seq uint64, offset int64) Position {
		return Position{Cluster: "test", Timeline: 1, Sequence: seq, Offset: offset}
	}
	// Offsets 40 and 41 are of sequence 21; 40 is gone and that does not matter.
	if offset, err := join(t.Context(), p, at(21, 40)); err != nil || joins(p, at(21, 40), offset) != nil {
		t.Errorf("only a heartbeat aged out: offset %d, %v", offset, err)
	}
	_, err := join(t.Context(), p, at(20, 38))
	var gone *NotRetainedError
	if !errors.As(err, &gone) || gone.FirstOffset != 41 || gone.FirstSequence != 22 || gone.Position.Sequence != 20 {
		t.Errorf("a batch aged out: %v", err)
	}
	// A database that is ahead of the topic (its source's capture lags) waits at the end.
	if offset, err := join(t.Context(), p, at(70, -1)); err != nil || offset != 100 {
		t.Errorf("ahead: offset %d, %v", offset, err)
	}
	if _, err := join(t.Context(), p, Position{Cluster: "other", Timeline: 1}); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("other cluster: %v", err)
	}
	if _, err := join(t.Context(), p, Position{Cluster: "test", Timeline: 4, Sequence: 9, Offset: -1}); !errors.Is(err, ErrTimelineMismatch) {
		t.Errorf("timeline from the future: %v", err)
	}
	// The stored offset lies: the topic was created anew.
	if offset, err := join(t.Context(), p, at(30, 90)); err != nil || joins(p, at(30, 90), offset) != nil {
		t.Errorf("wrong offset: %d, %v", offset, err)
	}
}

func TestJoinIsNotMisledByRetentionThatMovesMeanwhile(t *testing.T) {
	var frames []Frame
	for seq := uint64(1); seq <= 10; seq++ {
		frames = append(frames, testBatch(1, seq, 1, 1)...)
	}
	for dropped, want := range map[int64]error{5: nil, 6: ErrNotRetained} {
		p := list(0, frames)
		p.forget = func() { p.trim(dropped) }
		// Stands behind the frame at offset 4: what it reads next is at offset 5.
		offset, err := join(t.Context(), p, Position{Cluster: "test", Timeline: 1, Sequence: 5, Offset: 4})
		if !errors.Is(err, want) || err == nil && offset != 5 {
			t.Errorf("%d frames dropped while it looked: offset %d, %v", dropped, offset, err)
		}
		if gone := new(NotRetainedError); want != nil && (!errors.As(err, &gone) || gone.Position.Sequence != 5) {
			t.Errorf("%d frames dropped: the error does not name the position: %v", dropped, err)
		}
	}
}

func TestJoinAcrossTimelines(t *testing.T) {
	var frames []Frame
	for seq := uint64(1); seq <= 10; seq++ {
		frames = append(frames, testBatch(1, seq, 1, 1)...)
	}
	frames = append(frames, StartFrame(2, TimelineStart{Cluster: "test", Reason: ReasonTakeover, PreviousTimeline: 1, PreviousSequence: 10, Base: 10}, time.Unix(0, 0)))
	frames = append(frames, testBatch(1, 11, 1, 1)...) // stale
	for seq := uint64(11); seq <= 20; seq++ {
		frames = append(frames, testBatch(2, seq, 1, 1)...)
	}
	pos := func(timeline, seq uint64) Position {
		return Position{Cluster: "test", Timeline: timeline, Sequence: seq, Offset: -1}
	}
	p := list(0, frames)
	if offset, err := findSequence(t.Context(), p, pos(1, 10)); err != nil || offset != 10 {
		t.Errorf("at the boundary: %d, %v", offset, err)
	}
	if _, err := findSequence(t.Context(), p, pos(1, 11)); !errors.Is(err, ErrTimelineMismatch) {
		t.Errorf("applied a stale batch: %v", err)
	}
	p.trim(10)
	if _, err := findSequence(t.Context(), p, pos(1, 9)); !errors.Is(err, ErrNotRetained) {
		t.Errorf("before the boundary, which is the first: %v", err)
	}
	p.trim(13)
	if _, err := findSequence(t.Context(), p, pos(1, 10)); !errors.Is(err, ErrNotRetained) {
		t.Errorf("start gone: %v", err)
	}
	if offset, err := findSequence(t.Context(), list(5, nil), pos(1, 10)); err != nil || offset != 5 {
		t.Errorf("empty topic: %d, %v", offset, err)
	}
}

func TestTailIsTheLastWhollyPublishedSequence(t *testing.T) {
	hb := func(timeline, last uint64) []Frame {
		return []Frame{HeartbeatFrame(timeline, last, Heartbeat{Cluster: "test", Genesis: "0x1"}, time.Unix(0, 0))}
	}
	take := func(timeline, base uint64) []Frame {
		return []Frame{StartFrame(timeline, TimelineStart{Cluster: "test", Genesis: "0x2", Reason: ReasonTakeover, PreviousTimeline: timeline - 1, PreviousSequence: base, Base: base}, time.Unix(0, 0))}
	}
	cut := testBatch(1, 4, 3, 3)
	join := func(fs ...[]Frame) (all []Frame) {
		for _, f := range fs {
			all = append(all, f...)
		}
		return all
	}
	for name, c := range map[string]struct {
		frames             []Frame
		timeline, sequence uint64
	}{
		"start alone":             {take(1, 40), 1, 40},
		"batches":                 {join(take(1, 0), testBatch(1, 1, 3, 1)), 1, 3},
		"heartbeat":               {hb(1, 3), 1, 3},
		"half-sent batch":         {join(hb(1, 3), cut[:2]), 1, 3},
		"whole batch":             {join(hb(1, 3), cut), 1, 6},
		"sent again, half":        {join(hb(1, 3), cut[:1], cut[:2]), 1, 3},
		"sent again, whole":       {join(hb(1, 3), cut[:1], cut), 1, 6},
		"late duplicate":          {join(hb(1, 0), testBatch(1, 1, 3, 1), cut, testBatch(1, 1, 3, 1)), 1, 6},
		"stale frames":            {join(hb(1, 3), take(2, 3), cut, hb(1, 6)), 2, 3},
		"stale frames and newer":  {join(hb(1, 3), take(2, 3), cut, testBatch(2, 4, 2, 1)), 2, 5},
		"half-sent, new timeline": {join(hb(1, 3), cut[:2], take(2, 3)), 2, 3},
		"only the last parts":     {join(cut[1:], hb(1, 6)), 1, 6},
	} {
		tail, err := findTail(t.Context(), list(100, c.frames))
		if err != nil || tail.Empty || tail.Timeline != c.timeline || tail.Sequence != c.sequence || tail.Next != 100+int64(len(c.frames)) {
			t.Errorf("%s: %+v, %v; want timeline %d sequence %d", name, tail, err, c.timeline, c.sequence)
		}
		if tail.Genesis() == "" {
			t.Errorf("%s: no genesis", name)
		}
	}
	if tail, err := findTail(t.Context(), list(9, nil)); err != nil || !tail.Empty || tail.Next != 9 {
		t.Errorf("empty: %+v, %v", tail, err)
	}
	other := list(0, hb(1, 3))
	other.name = "other"
	if _, err := findTail(t.Context(), other); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("other cluster: %v", err)
	}
}

// A topic with small segments and a short retention loses what a start is about to read.
func TestTailIsFoundWhileRetentionGoesPastIt(t *testing.T) {
	var frames []Frame
	for seq := uint64(1); seq <= 2000; seq++ {
		frames = append(frames, HeartbeatFrame(1, seq, Heartbeat{Cluster: "test"}, time.Unix(0, 0)))
	}
	p := list(0, frames)
	p.forget = func() { p.trim(1990) }
	tail, err := findTail(t.Context(), p)
	if err != nil || tail.First != 1990 || tail.Next != 2000 || tail.Sequence != 2000 {
		t.Errorf("%+v, %v", tail, err)
	}
}

// TestTailSeesPastAStaleMasterOfOneRequest: a paused master that wakes writes one
// full request on its old timeline; the newer start stands before it.
func TestTailSeesPastAStaleMasterOfOneRequest(t *testing.T) {
	var frames []Frame
	for seq := uint64(1); seq <= 5000; seq++ {
		frames = append(frames, testBatch(1, seq, 1, 1)...)
	}
	frames = append(frames, StartFrame(2, TimelineStart{Cluster: "test", PreviousTimeline: 1, PreviousSequence: 5000, Base: 5000}, time.Unix(0, 0)))
	for seq := uint64(5001); seq <= 5000+maxRequestFrames; seq++ {
		frames = append(frames, testBatch(1, seq, 1, 1)...)
	}
	p := list(0, frames)
	tail, err := findTail(t.Context(), p)
	if err != nil || tail.Timeline != 2 || tail.Sequence != 5000 {
		t.Errorf("%+v, %v", tail, err)
	}
	if p.reads > 40 {
		t.Errorf("%d reads", p.reads)
	}
}

func TestTailAgreesWithTheSequencer(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		topic := testTopic(r, 20+r.IntN(1500), true)
		p := list(0, topic[:len(topic)-r.IntN(10)])
		all := positions(t, p)
		tail, err := findTail(t.Context(), p)
		if end := all[len(all)-1]; err != nil || tail.Timeline != end.Timeline || tail.Sequence != end.Sequence {
			t.Fatalf("seed %d: %+v, %v; a replica stands at %s", seed, tail, err, end)
		}
	}
}

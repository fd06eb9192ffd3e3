package changelog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
)

func entries(frames []changelog.Frame) []changelog.Entry {
	es := make([]changelog.Entry, len(frames))
	for i, f := range frames {
		es[i] = changelog.Entry{Offset: int64(i), HighWater: int64(len(frames)), Frame: f}
	}
	return es
}

// feed runs frames through a Sequencer and returns the first sequences of the
// batches it delivered.
func feed(s *changelog.Sequencer, frames []changelog.Frame) (delivered []uint64, err error) {
	for _, e := range entries(frames) {
		ev, err := s.Next(e)
		if err != nil {
			return delivered, err
		}
		if ev.Kind == changelog.EventBatch {
			delivered = append(delivered, ev.First)
		}
	}
	return delivered, nil
}

func at(timeline, sequence uint64) changelog.Position {
	return changelog.Position{Cluster: testCluster, Timeline: timeline, Sequence: sequence, Offset: -1}
}

func batch(timeline, first uint64, count uint32) changelog.Frame {
	return changelog.SplitBatch(timeline, first, count, record(first, count, 40), 0, goldenTime)[0]
}

// cut makes a batch of three parts.
func cut(timeline, first uint64, count uint32) []changelog.Frame {
	return changelog.SplitBatch(timeline, first, count, record(first, count, 90), 30, goldenTime)
}

func heartbeat(timeline, last uint64) changelog.Frame {
	return changelog.HeartbeatFrame(timeline, last, changelog.Heartbeat{Cluster: testCluster}, goldenTime)
}

func start(timeline uint64, s changelog.TimelineStart) changelog.Frame {
	s.Cluster = testCluster
	return changelog.StartFrame(timeline, s, goldenTime)
}

func takeover(timeline, previous, base uint64) changelog.Frame {
	return start(timeline, changelog.TimelineStart{Reason: changelog.ReasonTakeover, PreviousTimeline: previous, PreviousSequence: base, Base: base})
}

func TestBatchesAreDeliveredInOrderAndOnce(t *testing.T) {
	c := cut(1, 5, 2)
	frames := []changelog.Frame{
		batch(1, 1, 2), batch(1, 1, 2), batch(1, 3, 2), batch(1, 1, 2), heartbeat(1, 4), heartbeat(1, 2),
		c[0], c[1], c[0], heartbeat(1, 4), c[1], c[2], c[0], c[1], c[2], batch(1, 7, 1), batch(1, 3, 2), heartbeat(1, 7),
	}
	s := changelog.NewSequencer(at(1, 0))
	got, err := feed(s, frames)
	if err != nil || !slices.Equal(got, []uint64{1, 3, 5, 7}) {
		t.Fatalf("delivered %v, err %v", got, err)
	}
	if s.Position().Sequence != 7 || s.Position().Offset != int64(len(frames)-1) {
		t.Errorf("position %s", s.Position())
	}
}

func TestPositionStaysBeforeABatchThatIsNotWhole(t *testing.T) {
	c := cut(1, 2, 1)
	s := changelog.NewSequencer(at(1, 0))
	if _, err := feed(s, []changelog.Frame{batch(1, 1, 1), c[0], c[1], heartbeat(1, 1)}); err != nil {
		t.Fatal(err)
	}
	if p := s.Position(); p.Offset != 0 || p.Sequence != 1 {
		t.Errorf("position %s: reading on from there would miss part 1", p)
	}
}

// TestAHoleStopsTheSequencer breaks I1 on purpose (fault 1).
func TestAHoleStopsTheSequencer(t *testing.T) {
	c := cut(1, 3, 4)
	for name, frames := range map[string][]changelog.Frame{
		"lost batch":               {batch(1, 1, 2), batch(1, 4, 1)},
		"lost last batch":          {batch(1, 1, 2), heartbeat(1, 3)},
		"lost first part":          {batch(1, 1, 2), c[1], c[2]},
		"lost middle part":         {batch(1, 1, 2), c[0], c[2]},
		"lost last part":           {batch(1, 1, 2), c[0], c[1], batch(1, 7, 1)},
		"lost last part, silence":  {batch(1, 1, 2), c[0], c[1], heartbeat(1, 6)},
		"lost batch at a takeover": {batch(1, 1, 2), takeover(2, 1, 5)},
		"lost batch, new timeline": {takeover(2, 1, 0), batch(2, 2, 1)},
	} {
		s := changelog.NewSequencer(at(1, 0))
		_, err := feed(s, frames)
		var hole *changelog.HoleError
		if !errors.As(err, &hole) || !errors.Is(err, changelog.ErrHole) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if hole.Offset != int64(len(frames)-1) && name != "lost first part" || hole.Want != hole.Position.Sequence+1 {
			t.Errorf("%s: %+v", name, hole)
		}
		before := s.Position()
		if _, again := s.Next(changelog.Entry{Offset: 99, Frame: batch(before.Timeline, before.Sequence+1, 1)}); !errors.Is(again, changelog.ErrHole) || s.Position() != before {
			t.Errorf("%s: went on behind the hole: %v", name, again)
		}
	}
}

// TestOlderTimelinesAreIgnored breaks I4 on purpose: a master that was taken over
// goes on writing.
func TestOlderTimelinesAreIgnored(t *testing.T) {
	stale := cut(1, 3, 2)
	frames := []changelog.Frame{
		batch(1, 1, 2), stale[0], takeover(2, 1, 2), stale[1], stale[2], batch(1, 5, 1), heartbeat(1, 9),
		batch(2, 3, 1), batch(1, 3, 1), takeover(2, 1, 2), heartbeat(2, 3), batch(2, 4, 1),
	}
	s := changelog.NewSequencer(at(1, 0))
	got, err := feed(s, frames)
	if err != nil || !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Fatalf("delivered %v, err %v", got, err)
	}
	if p := s.Position(); p.Timeline != 2 || p.Sequence != 4 {
		t.Errorf("position %s", p)
	}
	if s.Dropped() != 6 {
		t.Errorf("dropped %d frames", s.Dropped())
	}
}

func TestATimelineThatDoesNotJoinStopsTheSequencer(t *testing.T) {
	for name, c := range map[string]struct {
		at     changelog.Position
		frames []changelog.Frame
		want   error
	}{
		"applied more than the new master had": {at(1, 9), []changelog.Frame{takeover(2, 1, 8)}, changelog.ErrTimelineMismatch},
		"skipped a timeline":                   {at(1, 8), []changelog.Frame{takeover(3, 2, 8)}, changelog.ErrTimelineMismatch},
		"rebase joins nobody": {at(1, 8), []changelog.Frame{start(2, changelog.TimelineStart{
			Reason: changelog.ReasonRebase, PreviousTimeline: 1, PreviousSequence: 8, Base: 8})}, changelog.ErrTimelineMismatch},
		"snapshot from before the base": {at(1, 3), []changelog.Frame{start(1, changelog.TimelineStart{
			Reason: changelog.ReasonInitial, Base: 8})}, changelog.ErrTimelineMismatch},
		"no start":            {at(1, 8), []changelog.Frame{batch(2, 9, 1)}, changelog.ErrCorrupt},
		"straddles":           {at(1, 8), []changelog.Frame{batch(1, 8, 2)}, changelog.ErrCorrupt},
		"parts do not add up": {at(1, 8), damagedParts(), changelog.ErrCorrupt},
		"other cluster": {at(1, 8), []changelog.Frame{changelog.HeartbeatFrame(1, 8, changelog.Heartbeat{Cluster: "other"}, goldenTime)},
			changelog.ErrWrongCluster},
	} {
		if _, err := feed(changelog.NewSequencer(c.at), c.frames); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func damagedParts() []changelog.Frame {
	parts := cut(1, 9, 1)
	parts[1].Payload = bytes.Repeat([]byte{1}, len(parts[1].Payload))
	return parts
}

func TestABadFrameStopsTheSequencerWithItsOffset(t *testing.T) {
	s := changelog.NewSequencer(at(1, 8))
	_, bad := changelog.Decode([]byte("nonsense"))
	_, err := s.Next(changelog.Entry{Offset: 4711, Err: bad})
	if !errors.Is(err, changelog.ErrCorrupt) || !errors.Is(err, changelog.ErrBadFrame) || !bytes.Contains([]byte(err.Error()), []byte("4711")) {
		t.Errorf("%v", err)
	}
}

func TestTwoCutsOfOneBatchMayInterleave(t *testing.T) {
	rec := record(1, 3, 120)
	a := changelog.SplitBatch(1, 1, 3, rec, 40, goldenTime)
	b := changelog.SplitBatch(1, 1, 3, rec, 30, goldenTime)
	s := changelog.NewSequencer(at(1, 0))
	got, err := feed(s, []changelog.Frame{a[0], a[1], b[0], b[1], a[0], b[2], a[2], b[3], batch(1, 4, 1)})
	if err != nil || !slices.Equal(got, []uint64{1, 4}) {
		t.Fatalf("delivered %v, err %v", got, err)
	}
}

// FuzzSequencer generates a stream, then repeats, delays and loses requests of it
// as brokers and a retrying publisher can. Whatever is delivered must be the
// stream's beginning; all of it when nothing was lost, and an error otherwise.
func FuzzSequencer(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, uint8(seed%4), uint8(seed%3))
	}
	f.Fuzz(func(t *testing.T, seed uint64, losses, repeats uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		records, requests := randomStream(r)
		var topic []changelog.Frame
		lost := false
		for i, q := range requests {
			if losses > 0 && r.IntN(len(requests)) < int(losses%4) {
				q = slices.Clone(q)
				k := r.IntN(len(q))
				lost = lost || q[k].Kind != changelog.KindHeartbeat
				q = slices.Delete(q, k, k+1)
			}
			topic = append(topic, q...)
			// An earlier request lands again, whole, behind newer ones.
			for range r.IntN(int(repeats%3) + 1) {
				topic = append(topic, requests[r.IntN(i+1)]...)
			}
		}
		last := records[len(records)-1]
		end := binary.LittleEndian.Uint64(last) + uint64(binary.LittleEndian.Uint32(last[8:])) - 1
		topic = append(topic, heartbeat(2, end))
		check(t, topic, records, lost, repeats%3 == 0)
	})
}

// randomStream makes batches over two timelines, and requests of some frames each.
func randomStream(r *rand.Rand) (records [][]byte, requests [][]changelog.Frame) {
	next, timeline := uint64(1), uint64(1)
	n := 5 + r.IntN(30)
	change := r.IntN(n)
	var request []changelog.Frame
	flush := func() {
		if len(request) > 0 {
			requests, request = append(requests, request), nil
		}
	}
	for i := range n {
		if i == change {
			flush()
			timeline = 2
			requests = append(requests, []changelog.Frame{takeover(2, 1, next-1)})
		}
		count := uint32(1 + r.IntN(5))
		rec := record(next, count, 12+r.IntN(200))
		records = append(records, rec)
		for _, f := range changelog.SplitBatch(timeline, next, count, rec, 50, time.Unix(0, 0)) {
			request = append(request, f)
			if r.IntN(3) == 0 {
				flush()
			}
		}
		next += uint64(count)
		if r.IntN(4) == 0 {
			request = append(request, heartbeat(timeline, next-1))
		}
	}
	flush()
	return records, requests
}

func check(t *testing.T, topic []changelog.Frame, records [][]byte, lost, exact bool) {
	t.Helper()
	s := changelog.NewSequencer(at(1, 0))
	delivered := 0
	var failed error
	for _, e := range entries(topic) {
		ev, err := s.Next(e)
		if err != nil {
			failed = err
			break
		}
		if ev.Kind != changelog.EventBatch {
			continue
		}
		if delivered == len(records) || !bytes.Equal(ev.Record, records[delivered]) {
			t.Fatalf("batch %d is not the stream's: first %d", delivered, ev.First)
		}
		delivered++
	}
	switch {
	case delivered < len(records) && failed == nil:
		t.Fatalf("%d of %d batches delivered and no error", delivered, len(records))
	case delivered < len(records) && !lost:
		t.Fatalf("nothing was lost, %d of %d delivered: %v", delivered, len(records), failed)
	case failed == nil && lost && exact:
		t.Fatal("a batch's frame was lost for good and nothing was noticed")
	}
}

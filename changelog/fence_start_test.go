package changelog

import (
	"errors"
	"testing"
	"time"
)

// missedStarts is a topic on which a paused master came in between: the new master had replayed up to sequence 3 and
// expected offset 3, the old one's batch 4 to 5 took that place. The new master starts over with another timeline.
func missedStarts() *listPages {
	begin := func(timeline, previous, base uint64, offset int64) Frame {
		return StartFrame(timeline, TimelineStart{Cluster: "test", Reason: ReasonTakeover, PreviousTimeline: 1,
			PreviousSequence: previous, Base: base, Offset: offset}, time.Unix(0, 0))
	}
	frames := []Frame{StartFrame(1, TimelineStart{Cluster: "test", Reason: ReasonInitial}, time.Unix(0, 0))}
	frames = append(frames, testBatch(1, 1, 1, 1)...)
	frames = append(frames, testBatch(1, 2, 2, 1)...)
	frames = append(frames, testBatch(1, 4, 2, 1)...)
	frames = append(frames, begin(2, 3, 90, 3)) // offset 4: void
	frames = append(frames, testBatch(1, 6, 1, 1)...)
	frames = append(frames, begin(3, 6, 95, 6)) // offset 6
	frames = append(frames, begin(3, 6, 99, 5)) // another's, too late
	frames = append(frames, testBatch(3, 96, 5, 1)...)
	return list(0, frames)
}

func TestAStartThatTheLogHasPassedIsVoid(t *testing.T) {
	p := missedStarts()
	for from := uint64(0); from <= 6; from++ {
		at := Position{Cluster: "test", Timeline: 1, Sequence: from, Offset: -1}
		if from == 2 || from == 4 {
			continue // within a batch
		}
		offset, err := join(t.Context(), p, at)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		s := NewSequencer(at)
		for _, e := range p.entries[offset:] {
			if _, err := s.Next(e); err != nil {
				t.Fatalf("%s: offset %d: %v", at, e.Offset, err)
			}
		}
		if got := s.Position(); got.Timeline != 3 || got.Sequence != 100 {
			t.Errorf("%s: ends at %s", at, got)
		}
	}
	// A copy that stands further than the log ever was on its timeline joins nothing.
	s := NewSequencer(Position{Cluster: "test", Timeline: 1, Sequence: 8, Offset: -1})
	var err error
	for _, e := range p.entries {
		if _, err = s.Next(e); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrTimelineMismatch) {
		t.Errorf("a copy with unpublished writes: %v", err)
	}
}

func TestTailIsNotMisledByAVoidStart(t *testing.T) {
	p := missedStarts()
	for n, want := range []Tail{
		5: {Timeline: 1, Sequence: 5, Newest: 2}, 6: {Timeline: 1, Sequence: 6, Newest: 2},
		7: {Timeline: 3, Sequence: 95, Newest: 3}, 8: {Timeline: 3, Sequence: 95, Newest: 3}, 9: {Timeline: 3, Sequence: 100, Newest: 3},
	} {
		if n < 5 {
			continue
		}
		got, err := findTail(t.Context(), &listPages{name: "test", entries: p.entries[:n], perPage: 1})
		if err != nil || got.Timeline != want.Timeline || got.Sequence != want.Sequence || got.Newest != want.Newest {
			t.Errorf("%d frames: %+v, %v; want %+v", n, got, err, want)
		}
	}
}

package changelog

import (
	"context"
	"errors"
	"fmt"
)

// lookBack is how many offsets before a search's result are read through, to see
// that duplicates or stale frames did not mislead it; it doubles when they did.
const lookBack = 128

// lookBackLimit bounds that doubling: what misleads a search further back than
// this is not a publisher's retry.
const lookBackLimit = 1 << 16

// FindSequence returns the offset from which a database at (timeline, seq) must
// read on: that of part 1 of the batch that holds seq+1, of an earlier heartbeat
// or timeline start that joins there, or the topic's end when nothing newer is on
// it. It needs about log2(n) small reads, and a few more where duplicates or an
// older timeline's stale frames lie about.
//
// Errors: [NotRetainedError] when seq+1 was there and no longer is, [HoleError]
// when it never came, [ErrTimelineMismatch], [ErrNoTopic].
func (l *Log) FindSequence(ctx context.Context, timeline, seq uint64) (int64, error) {
	return findSequence(ctx, logPages{l}, Position{Cluster: l.opts.Cluster, Timeline: timeline, Sequence: seq, Offset: -1})
}

// Join returns the offset at which a database at the stored position reads on.
// The stored offset is believed only if the frame there fits the sequence;
// otherwise the sequence is searched for, so that heartbeats that aged out do not
// matter and a topic that was created anew does not mislead. Errors as
// [Log.FindSequence], and [ErrWrongCluster].
func (l *Log) Join(ctx context.Context, at Position) (int64, error) {
	return join(ctx, logPages{l}, at)
}

func join(ctx context.Context, p pages, at Position) (int64, error) {
	if at.Cluster != p.cluster() {
		return 0, fmt.Errorf("%w: this database is of cluster %q, the change log of %q; check --cluster and --datadir", ErrWrongCluster, at.Cluster, p.cluster())
	}
	first, next, err := p.bounds(ctx)
	if err != nil {
		return 0, err
	}
	if at.Offset >= first && at.Offset < next {
		entries, err := p.page(ctx, at.Offset, 1)
		// Retention may have moved the topic's beginning meanwhile: the search tells whether that matters.
		if err != nil && !errors.Is(err, ErrNotRetained) {
			return 0, err
		}
		if len(entries) > 0 && entries[0].Offset == at.Offset && endsAt(&entries[0], at) {
			return at.Offset + 1, nil
		}
	}
	return findSequence(ctx, p, at)
}

// endsAt says that a database that applied the entry stands at the position.
func endsAt(e *Entry, at Position) bool {
	return e.Err == nil && e.Frame.Timeline == at.Timeline && e.Frame.Last() == at.Sequence
}

// past says that the entry shows seq+1 or something newer. No entry before the
// sought one is past; behind it duplicates and stale frames are not either, and
// these are what can mislead a search.
func past(e *Entry, at Position) bool {
	f := &e.Frame
	switch {
	case e.Err != nil || f.Timeline < at.Timeline || f.Kind == KindTimelineStart && missed(e, at):
		return false
	case f.Timeline > at.Timeline:
		return true
	case f.Kind == KindBatch:
		return f.Last() > at.Sequence
	default:
		return f.First > at.Sequence
	}
}

// missed says that the entry is a void timeline start, as the position has it.
func missed(e *Entry, at Position) bool {
	st, err := e.Frame.Start()
	return err == nil && st.Missed(e.Offset, at.Timeline, at.Sequence)
}

func findSequence(ctx context.Context, p pages, at Position) (int64, error) {
	for try := 0; ; try++ {
		offset, err := searchOnce(ctx, p, at)
		var gone *NotRetainedError
		// Retention moved the topic's beginning past a page that was about to
		// be read: the search begins anew. Its own verdict names the sequence.
		if try < 3 && errors.As(err, &gone) && gone.Position != at {
			continue
		}
		return offset, err
	}
}

func searchOnce(ctx context.Context, p pages, at Position) (int64, error) {
	first, next, err := p.bounds(ctx)
	if err != nil {
		return 0, err
	}
	if first == next {
		return next, nil
	}
	found, err := bisect(ctx, p, at, first, next)
	if err != nil {
		return 0, err
	}
	for span := int64(lookBack); ; span *= 4 {
		var steady bool
		if found, steady, err = stepBack(ctx, p, at, first, found, span); err != nil {
			return 0, err
		}
		limit := found.offset == first || span >= lookBackLimit
		if !steady && !limit {
			continue
		}
		offset, err := verdict(found, at, first, next)
		// A hole may be a search misled: it is believed only after a longer look.
		if err == nil || limit || !errors.Is(err, ErrHole) {
			return offset, err
		}
	}
}

// hit is a search's result so far: the lowest offset known to be past, with its
// entry; or the topic's end without one.
type hit struct {
	offset int64
	entry  *Entry
	newest uint64 // newest timeline seen on the way
}

func (h *hit) see(entries []Entry, at Position) (none bool) {
	none = true
	for i := range entries {
		e := &entries[i]
		h.newest = max(h.newest, e.Frame.Timeline)
		if !past(e, at) {
			continue
		}
		if e.Offset < h.offset {
			c := *e
			c.Frame.Payload = append([]byte(nil), headOf(e.Frame)...)
			h.offset, h.entry = e.Offset, &c
		}
		return false
	}
	return none
}

// headOf returns what verdict needs of a payload: control frames are small.
func headOf(f Frame) []byte {
	if f.Kind == KindBatch {
		return nil
	}
	return f.Payload
}

// bisect halves until the lowest past entry is found, taking each answer for
// what it shows: none of its entries past moves the lower end behind all of them.
func bisect(ctx context.Context, p pages, at Position, first, next int64) (hit, error) {
	h := hit{offset: next}
	for lo, hi := first, next; lo < hi; {
		mid := lo + (hi-lo)/2
		entries, err := p.page(ctx, mid, probeBytes)
		if err != nil {
			return h, err
		}
		if len(entries) == 0 {
			hi = mid
			continue
		}
		if h.see(entries, at) {
			lo = max(mid+1, entries[len(entries)-1].Offset+1)
		} else {
			hi = mid
		}
	}
	return h, nil
}

// stepBack reads through the span before the result. It is steady if that holds
// no past entry, and something of the timeline itself that tells so.
func stepBack(ctx context.Context, p pages, at Position, first int64, h hit, span int64) (hit, bool, error) {
	from, end := max(first, h.offset-span), h.offset
	// Before the timeline's start there is nothing of it.
	own := h.entry != nil && h.entry.Frame.Kind == KindTimelineStart && h.entry.Frame.Timeline == at.Timeline
	none := true
	for pos := from; pos < end; {
		entries, err := p.page(ctx, pos, scanBytes)
		if err != nil {
			return h, false, err
		}
		if len(entries) == 0 {
			break
		}
		for i := range entries {
			if e := &entries[i]; e.Offset < end && e.Err == nil && e.Frame.Timeline == at.Timeline {
				own = true
			}
		}
		pos = entries[len(entries)-1].Offset + 1
		before := h.offset
		h.see(entries, at)
		if h.offset < before {
			none = false
			break
		}
	}
	if from == first && none {
		return h, true, nil
	}
	return h, own && none, nil
}

// verdict says whether a database at the position can read on at the result.
func verdict(h hit, at Position, first, next int64) (int64, error) {
	if h.entry == nil {
		if h.newest != 0 && h.newest < at.Timeline {
			return 0, fmt.Errorf("%w: the topic ends on timeline %d, this database stands at %s: the topic was created anew or belongs to another cluster",
				ErrTimelineMismatch, h.newest, at)
		}
		return next, nil
	}
	f := &h.entry.Frame
	gone := func() error {
		if h.offset == first {
			return &NotRetainedError{Position: at, FirstOffset: first, FirstTimeline: f.Timeline, FirstSequence: f.First}
		}
		return &HoleError{Position: at, Offset: h.offset, Want: at.Sequence + 1, Got: f.First, Detail: "found while searching the position"}
	}
	if f.Timeline == at.Timeline {
		if f.First > at.Sequence+1 || f.Part > 1 {
			return 0, gone()
		}
		return h.offset, nil
	}
	mismatch := fmt.Errorf("%w: offset %d is on timeline %d, this database stands at %s; it needs a snapshot of timeline %d", ErrTimelineMismatch, h.offset, f.Timeline, at, f.Timeline)
	if f.Kind != KindTimelineStart {
		if h.offset == first {
			return 0, gone()
		}
		return 0, mismatch
	}
	st, err := f.Start()
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: offset %d: %w", ErrCorrupt, h.offset, err)
	case st.Reason == ReasonRebase || st.PreviousTimeline < at.Timeline:
		return 0, mismatch
	case st.PreviousTimeline > at.Timeline || st.PreviousSequence > at.Sequence:
		return 0, gone()
	case st.PreviousSequence < at.Sequence:
		return 0, mismatch
	}
	return h.offset, nil
}

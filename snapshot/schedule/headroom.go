package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/drover-io/drover/changelog"
)

// Condition says whether a replica can be started from the newest usable snapshot.
type Condition string

// Conditions. Left means something for Bounded alone.
const (
	Bounded   Condition = "ok"        // for Left at least
	Unlimited Condition = "unlimited" // the topic keeps frames for ever
	Lost      Condition = "lost"      // no: the change log does not continue it (any more)
	None      Condition = "none"      // there is no usable snapshot
)

// Figures are what headroom is computed from.
type Figures struct {
	Now time.Time
	// First and Next are the topic's bounds; FirstAt is the time of the first retained frame, zero when there is none.
	First, Next int64
	FirstAt     time.Time
	Retention   changelog.Retention
	// Reads is the offset of the frame that a replica started from the snapshot reads first, Next when it has all. Continues is
	// why it cannot read on, or nil.
	Reads     int64
	ReadsAt   time.Time // of that frame; zero when there is none yet
	Continues error
}

// Headroom is the time until Kafka may drop the frame that a replica started from the newest usable snapshot reads first.
// It is a lower bound: Kafka drops whole segments, each after the newest record in it has aged.
type Headroom struct {
	Condition Condition
	Left      time.Duration
	// Retention is the time that frames stay: retention.ms, or less where retention.bytes takes them sooner (BySize); 0 =
	// for ever.
	Retention time.Duration
	BySize    bool
	// Age is how old the frame is that a replica would read first; 0 when there is none yet.
	Age    time.Duration
	Reason string // of Lost and None
}

// short tells whether no replica can be started, or less than limit is left.
func (h *Headroom) short(limit time.Duration) bool {
	return h.Condition == Lost || h.Condition == None || h.Condition == Bounded && h.Left < limit
}

// headroomJSON has durations in seconds, for scripts.
type headroomJSON struct {
	Condition        Condition `json:"condition"`
	Seconds          *float64  `json:"seconds"`          // null: no limit
	RetentionSeconds *float64  `json:"retentionSeconds"` // null: for ever
	BySize           bool      `json:"bySize,omitempty"`
	AgeSeconds       float64   `json:"ageSeconds"`
	Reason           string    `json:"reason,omitempty"`
}

func (h *Headroom) shown() headroomJSON {
	out := headroomJSON{Condition: h.Condition, BySize: h.BySize, AgeSeconds: h.Age.Seconds(), Reason: h.Reason}
	if left := h.Left.Seconds(); h.Condition != Unlimited {
		out.Seconds = &left
	}
	if r := h.Retention.Seconds(); r != 0 {
		out.RetentionSeconds = &r
	}
	return out
}

// MarshalJSON has durations in seconds.
func (h Headroom) MarshalJSON() ([]byte, error) { return json.Marshal(h.shown()) }

// MarshalJSON has durations in seconds.
func (m Measured) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		headroomJSON
		At     time.Time `json:"at,omitzero"`
		Newest *Point    `json:"newest"`
		All    int       `json:"snapshots"`
		First  int64     `json:"firstOffset"`
		Next   int64     `json:"nextOffset"`
	}{m.shown(), m.At, m.Newest, m.All, m.First, m.Next})
}

// Compute is the arithmetic of headroom.
func Compute(f Figures) Headroom {
	h := Headroom{Condition: Bounded}
	h.Retention, h.BySize = effective(f)
	switch {
	case f.Continues != nil:
		h.Condition, h.Reason = Lost, f.Continues.Error()
		return h
	case f.Reads < f.First:
		h.Condition = Lost
		h.Reason = fmt.Sprintf("a replica would have to read from offset %d, the topic begins at %d", f.Reads, f.First)
		return h
	}
	if f.Reads < f.Next && !f.ReadsAt.IsZero() {
		// Clocks differ: a frame from the future is one of now.
		h.Age = max(0, f.Now.Sub(f.ReadsAt))
	}
	if h.Retention == 0 {
		h.Condition = Unlimited
		return h
	}
	// Past its time the frame may go at any moment, but it is not lost before it has gone.
	h.Left = max(0, h.Retention-h.Age)
	return h
}

// effective is how long frames stay. With retention.bytes, and frames gone already, the first one's age tells how far back
// the topic reaches: it will not become more by itself.
func effective(f Figures) (limit time.Duration, bySize bool) {
	limit = f.Retention.Time
	if f.Retention.Bytes == 0 || f.First == 0 || f.FirstAt.IsZero() {
		return limit, false
	}
	// An age of zero would stand for ever.
	if age := max(time.Millisecond, f.Now.Sub(f.FirstAt)); limit == 0 || age < limit {
		return age, true
	}
	return limit, false
}

// Measured is the headroom of what is in a store and on a topic.
type Measured struct {
	Headroom
	At      time.Time
	Newest  *Point // the newest usable snapshot, or nil
	All     int    // snapshots in the store, usable or not
	First   int64  // the topic's bounds
	Next    int64
	Setting changelog.Retention // of the topic
}

// Measure finds the newest usable snapshot and its headroom. The error is the store's or the brokers'; that there is no
// snapshot, or that it is lost, is none.
func Measure(ctx context.Context, topic Topic, points []Point, now func() time.Time) (m Measured, err error) {
	m.All = len(points)
	for i := len(points) - 1; i >= 0 && m.Newest == nil; i-- {
		if points[i].Usable {
			m.Newest = &points[i]
		}
	}
	f := Figures{}
	if f.Retention, err = topic.Retention(ctx); err != nil {
		return m, err
	}
	m.Setting = f.Retention
	// Retention may move the topic's beginning between two questions: then all are asked anew.
	for try, gone := 0, false; try < 4; try++ {
		err = f.ask(ctx, topic, m.Newest)
		// That a snapshot is lost is believed when it is said twice.
		if before := gone; err == nil {
			if gone = errors.Is(f.Continues, changelog.ErrNotRetained); before == gone {
				break
			}
		} else if !errors.Is(err, changelog.ErrNotRetained) {
			break
		}
	}
	if err != nil {
		return m, err
	}
	f.Now = now()
	m.At, m.First, m.Next = f.Now, f.First, f.Next
	if m.Newest == nil {
		m.Retention, m.BySize = effective(f)
		m.Condition, m.Reason = None, fmt.Sprintf("none of %d snapshots is usable", m.All)
		return m, nil
	}
	m.Headroom = Compute(f)
	return m, nil
}

func (f *Figures) ask(ctx context.Context, topic Topic, newest *Point) (err error) {
	if f.First, f.Next, err = topic.Bounds(ctx); err != nil {
		return err
	}
	if f.FirstAt, err = topic.TimeAt(ctx, f.First); err != nil || newest == nil {
		return err
	}
	f.Reads, f.Continues = topic.Join(ctx, newest.Position)
	switch err := f.Continues; {
	case err == nil:
	case discontinued(err), errors.Is(err, changelog.ErrWrongCluster):
		return nil
	default:
		return err
	}
	f.ReadsAt, err = topic.TimeAt(ctx, f.Reads)
	return err
}

// discontinued says of an error that the change log does not go on from a position (any more).
func discontinued(err error) bool {
	return errors.Is(err, changelog.ErrNotRetained) || errors.Is(err, changelog.ErrTimelineMismatch) || errors.Is(err, changelog.ErrHole)
}

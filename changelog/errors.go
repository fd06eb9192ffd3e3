package changelog

import (
	"errors"
	"fmt"
)

// What can go wrong, as errors.Is sees it. The error's text says what to do.
var (
	// ErrBadFrame means that a message is not a frame: empty, truncated,
	// oversized, damaged, of an unknown kind. See also [ErrCorrupt].
	ErrBadFrame = errors.New("bad frame")
	// ErrFutureVersion means that bytes were written by a newer release.
	ErrFutureVersion = errors.New("written by a newer release of Drover")
	// ErrHole means that sequences are missing ([HoleError]). Exit code 6.
	ErrHole = errors.New("hole in the change log")
	// ErrCorrupt means that the topic holds something that no master writes.
	// Exit code 5.
	ErrCorrupt = errors.New("corrupt change log")
	// ErrTimelineMismatch means that the database cannot follow into the
	// topic's timeline; it needs a snapshot of that one.
	ErrTimelineMismatch = errors.New("database does not belong to the change log's timeline")
	// ErrWrongCluster means that the topic or the database is of another cluster.
	ErrWrongCluster = errors.New("wrong cluster")
	// ErrFenced means that another writer took over the topic. Exit code 4.
	ErrFenced = errors.New("fenced: another master writes this change log")
	// ErrNotRetained means that Kafka no longer holds what was asked for
	// ([NotRetainedError]). Exit code 3.
	ErrNotRetained = errors.New("no longer retained")
	// ErrTruncated means that the topic ends before an offset that was there:
	// it was deleted and created again, or lost acknowledged messages.
	ErrTruncated = errors.New("change log was cut off or created anew")
	// ErrNoTopic means that the topic does not exist.
	ErrNoTopic = errors.New("topic does not exist")
	// ErrBrokersUnreachable means that no broker of the list answered.
	ErrBrokersUnreachable = errors.New("no Kafka broker answers")
	// ErrConfiguration means that TLS or SASL is configured wrongly: a file that
	// cannot be read, an unknown mechanism, no password. Exit code 2.
	ErrConfiguration = errors.New("wrong Kafka configuration")
	// ErrForbidden means that the Kafka user lacks a right.
	ErrForbidden = errors.New("not allowed")
	// ErrExpired means that the own client certificate has ended.
	ErrExpired = errors.New("certificate has expired")
	// ErrClosed means that the Reader or Log was closed.
	ErrClosed = errors.New("closed")
)

// HoleError says where the sequence breaks. It is an [ErrHole].
type HoleError struct {
	Position Position // last good position
	Offset   int64    // of the frame behind the hole
	Want     uint64   // the sequence that should have come
	Got      uint64   // the sequence that came
	Detail   string   // "part 2 of 3 is missing", or empty
}

// Error implements error.
func (e *HoleError) Error() string {
	s := fmt.Sprintf("%v: at offset %d sequence %d follows, %d was expected (position: %s)", ErrHole, e.Offset, e.Got, e.Want, e.Position)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s + "; start this replica from a newer snapshot, and the master with --rebase if every replica stops here"
}

// Is makes errors.Is(err, ErrHole) true.
func (e *HoleError) Is(target error) bool { return target == ErrHole }

// NotRetainedError says what was asked for and what the topic still holds. It is
// an [ErrNotRetained]. Callers that know the snapshots add the newest usable one.
type NotRetainedError struct {
	Position      Position // what was asked for; Sequence 0 when only an offset was
	FirstOffset   int64    // first offset that Kafka retains
	FirstTimeline uint64   // of the first retained frame, 0 when unknown
	FirstSequence uint64   // of the first retained frame, 0 when unknown
}

// Error implements error.
func (e *NotRetainedError) Error() string {
	s := fmt.Sprintf("%v: position %s, the topic's first retained offset is %d", ErrNotRetained, e.Position, e.FirstOffset)
	if e.FirstSequence != 0 {
		s += fmt.Sprintf(" (timeline %d sequence %d)", e.FirstTimeline, e.FirstSequence)
	}
	return s + "; restore a newer snapshot"
}

// Is makes errors.Is(err, ErrNotRetained) true.
func (e *NotRetainedError) Is(target error) bool { return target == ErrNotRetained }

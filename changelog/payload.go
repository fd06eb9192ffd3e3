package changelog

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"
)

// BlockRef names a block as a heartbeat does.
type BlockRef struct {
	Number uint64 `json:"number"`
	Hash   string `json:"hash"` // 0x and 64 hex digits
	Time   uint64 `json:"time"` // the block's timestamp, seconds since 1970
}

// Heartbeat is the master's view, sent every Interval even when nothing is
// written. Fields are added freely: readers ignore names that they don't know.
type Heartbeat struct {
	Cluster string `json:"cluster"`
	Genesis string `json:"genesis,omitempty"` // hash of block 0, 0x and 64 hex digits
	ChainID uint64 `json:"chainId,omitempty"`

	Head      *BlockRef `json:"head,omitempty"`
	Safe      *BlockRef `json:"safe,omitempty"`
	Finalized *BlockRef `json:"finalized,omitempty"`

	Peers           int    `json:"peers"`
	Syncing         bool   `json:"syncing"`
	GethVersion     string `json:"gethVersion,omitempty"`
	DroverVersion   string `json:"droverVersion,omitempty"`
	DatabaseVersion int    `json:"databaseVersion,omitempty"`

	SourceAlive       bool  `json:"sourceAlive"`       // geth's process runs and answers
	CaptureLagBatches int64 `json:"captureLagBatches"` // in the journals, not yet published
	CaptureLagBytes   int64 `json:"captureLagBytes"`

	// Stopping: the master has ended its geth, published everything, and says
	// goodbye. Nothing follows before a master starts again.
	Stopping bool `json:"stopping,omitempty"`

	Interval time.Duration `json:"interval"` // nanoseconds until the next one
}

// Reasons for a timeline to start.
const (
	// ReasonInitial opens an empty topic.
	ReasonInitial = "initial"
	// ReasonTakeover goes on from the end of the timeline before.
	ReasonTakeover = "takeover"
	// ReasonRebase follows a hole: no older database can join.
	ReasonRebase = "rebase"
)

// TimelineStart opens a timeline. A database at (PreviousTimeline,
// PreviousSequence) stands at (this timeline, Base) after it, except for
// [ReasonRebase], which nothing joins.
type TimelineStart struct {
	Cluster          string `json:"cluster"`
	Genesis          string `json:"genesis,omitempty"`
	ChainID          uint64 `json:"chainId,omitempty"`
	Reason           string `json:"reason"`
	PreviousTimeline uint64 `json:"previousTimeline"`
	PreviousSequence uint64 `json:"previousSequence"`
	Base             uint64 `json:"base"`
	// Offset is where the new master expected this frame to land: right behind
	// the last frame that it had replayed. 0: not told. See [TimelineStart.Missed].
	Offset int64 `json:"offset,omitempty"`

	GethVersion     string `json:"gethVersion,omitempty"`
	DroverVersion   string `json:"droverVersion,omitempty"`
	DatabaseVersion int    `json:"databaseVersion,omitempty"`
}

// Missed says that the start is void: it landed at another offset than its master
// expected, and the log had gone on from where it joins to (timeline, sequence) by
// then. Nobody on the way can join it, and its master, which finds the same out by
// reading what came between, writes nothing behind it and starts over.
func (s *TimelineStart) Missed(offset int64, timeline, sequence uint64) bool {
	return s.Offset != 0 && s.Offset != offset &&
		(s.PreviousTimeline < timeline || s.PreviousTimeline == timeline && s.PreviousSequence < sequence)
}

// HeartbeatFrame makes a heartbeat's frame; last is the last sequence that was
// published before it.
func HeartbeatFrame(timeline, last uint64, h Heartbeat, at time.Time) Frame {
	return controlFrame(KindHeartbeat, timeline, last+1, h, at)
}

// StartFrame makes the frame that opens timeline.
func StartFrame(timeline uint64, s TimelineStart, at time.Time) Frame {
	return controlFrame(KindTimelineStart, timeline, s.Base+1, s, at)
}

func controlFrame(kind Kind, timeline, first uint64, body any, at time.Time) Frame {
	payload, err := json.Marshal(body)
	if err != nil {
		// Both types hold nothing that JSON cannot say.
		panic(fmt.Sprintf("changelog: %s: %v", kind, err))
	}
	return Frame{
		Kind: kind, Timeline: timeline, First: first, Part: 1, Parts: 1, Time: at,
		BatchCRC: crc32.Checksum(payload, castagnoli), Payload: payload,
	}
}

// Heartbeat decodes the payload of a [KindHeartbeat] frame; errors wrap [ErrBadFrame].
func (f *Frame) Heartbeat() (*Heartbeat, error) {
	if f.Kind != KindHeartbeat {
		return nil, badFrame("%s where a heartbeat was expected", f.Kind)
	}
	h := new(Heartbeat)
	if err := json.Unmarshal(f.Payload, h); err != nil {
		return nil, badFrame("heartbeat: %v", err)
	}
	return h, nil
}

// Start decodes the payload of a [KindTimelineStart] frame; errors wrap [ErrBadFrame].
func (f *Frame) Start() (*TimelineStart, error) {
	if f.Kind != KindTimelineStart {
		return nil, badFrame("%s where a timeline start was expected", f.Kind)
	}
	s := new(TimelineStart)
	if err := json.Unmarshal(f.Payload, s); err != nil {
		return nil, badFrame("timeline start: %v", err)
	}
	if s.Base+1 != f.First {
		return nil, badFrame("timeline start with base %d and first sequence %d", s.Base, f.First)
	}
	return s, nil
}

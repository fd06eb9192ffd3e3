// Package loginspect shows the frames of a change log as rows that a person can read: where they stand, which sequences
// they carry, and what geth wrote with them, by geth's own key schema.
package loginspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// Log is what the inspector needs of a change log.
type Log interface {
	Bounds(ctx context.Context) (first, next int64, err error)
	FindSequence(ctx context.Context, timeline, seq uint64) (int64, error)
	Tail(ctx context.Context) (changelog.Tail, error)
	ReadRange(ctx context.Context, from, to int64, fn func(changelog.Entry) error) error
}

// Options say what to show. At most one of Offset, Sequence and Block says where to start; without any, the last Limit
// frames are shown.
type Options struct {
	Log Log
	// Offset is the Kafka offset of the first frame.
	Offset *int64
	// Sequence is a sequence that the first frame carries, on Timeline.
	Sequence *uint64
	// Timeline is that of Sequence; 0 means the newest.
	Timeline uint64
	// Block is the number of a block; the first frame is the one that made a block of at least that height canonical.
	Block *uint64
	// Limit is the greatest number of frames; 0 means all up to the topic's end.
	Limit int64
	// JSON prints an object for each frame, one on a line.
	JSON bool
	// Out gets the rows.
	Out io.Writer
}

// Inspector prints frames.
type Inspector struct{ opts Options }

// New checks the options.
func New(opts Options) (*Inspector, error) {
	starts := 0
	for _, given := range []bool{opts.Offset != nil, opts.Sequence != nil, opts.Block != nil} {
		if given {
			starts++
		}
	}
	if starts > 1 {
		return nil, errors.New("--offset, --sequence and --block exclude one another")
	}
	return &Inspector{opts: opts}, nil
}

// Run prints the frames up to the topic's present end.
func (i *Inspector) Run(ctx context.Context) error {
	first, next, err := i.opts.Log.Bounds(ctx)
	if err != nil {
		return err
	}
	from, err := i.start(ctx, first, next)
	if err != nil {
		return err
	}
	if i.opts.Limit > 0 {
		next = min(next, from+i.opts.Limit)
	}
	print, flush := i.printer()
	describe := &describer{}
	err = i.opts.Log.ReadRange(ctx, from, next, func(entry changelog.Entry) error {
		return print(describe.row(entry))
	})
	return errors.Join(err, flush())
}

// start finds the offset of the first frame to show.
func (i *Inspector) start(ctx context.Context, first, next int64) (int64, error) {
	switch {
	case i.opts.Offset != nil:
		return *i.opts.Offset, nil
	case i.opts.Sequence != nil:
		timeline := i.opts.Timeline
		if timeline == 0 {
			tail, err := i.opts.Log.Tail(ctx)
			if err != nil {
				return 0, err
			}
			timeline = tail.Timeline
		}
		// FindSequence answers where one who stands at a sequence reads on.
		return i.opts.Log.FindSequence(ctx, timeline, *i.opts.Sequence-1)
	case i.opts.Block != nil:
		return findBlock(ctx, i.opts.Log, *i.opts.Block, first, next)
	case i.opts.Limit > 0:
		return max(first, next-i.opts.Limit), nil
	default:
		return first, nil
	}
}

// printer returns a function that prints a row, and one to call at the end.
func (i *Inspector) printer() (print func(Row) error, flush func() error) {
	if i.opts.JSON {
		encoder := json.NewEncoder(i.opts.Out)
		return func(row Row) error { return encoder.Encode(row) }, func() error { return nil }
	}
	table := tabwriter.NewWriter(i.opts.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "OFFSET\tTIMELINE\tSEQUENCES\tKIND\tPART\tBYTES\tTIME\tCONTENT")
	rows := 0
	return func(row Row) error {
		rows++
		if rows%500 == 0 { // a long listing should begin to appear
			if err := table.Flush(); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(table, row.text())
		return err
	}, table.Flush
}

// Row is one frame.
type Row struct {
	Offset   int64     `json:"offset"`
	Timeline uint64    `json:"timeline"`
	First    uint64    `json:"first"`
	Count    uint32    `json:"count"`
	Kind     string    `json:"kind"`
	Part     uint32    `json:"part"`
	Parts    uint32    `json:"parts"`
	Bytes    int       `json:"bytes"`
	Time     time.Time `json:"time"`
	// Block is the number of the block that the batch is about, where its keys tell.
	Block *uint64 `json:"block,omitempty"`
	// Puts and Deletes count the batch's keys by kind.
	Puts    map[string]int `json:"puts,omitempty"`
	Deletes map[string]int `json:"deletes,omitempty"`
	// Heartbeat and Start are the payloads of those kinds of frames.
	Heartbeat *changelog.Heartbeat     `json:"heartbeat,omitempty"`
	Start     *changelog.TimelineStart `json:"start,omitempty"`
	// Error says why the message is not a good frame.
	Error string `json:"error,omitempty"`
}

// describer makes rows. It joins the parts of a cut batch, so that the last part's row can tell the keys.
type describer struct {
	parts []byte
	next  uint32
	crc   uint32
}

func (d *describer) row(entry changelog.Entry) Row {
	frame := entry.Frame
	row := Row{
		Offset: entry.Offset, Timeline: frame.Timeline, First: frame.First, Count: frame.Count, Kind: frame.Kind.String(),
		Part: frame.Part, Parts: frame.Parts, Bytes: entry.Size, Time: frame.Time,
	}
	if entry.Err != nil {
		row.Kind, row.Error = "bad", entry.Err.Error()
		return row
	}
	var err error
	switch frame.Kind {
	case changelog.KindBatch:
		if record := d.join(frame); record != nil {
			err = row.describe(record)
		}
	case changelog.KindHeartbeat:
		row.Heartbeat, err = frame.Heartbeat()
	case changelog.KindTimelineStart:
		row.Start, err = frame.Start()
	}
	if err != nil {
		row.Error = err.Error()
	}
	return row
}

// join returns the whole batch once its last part has come, nil before or when its beginning was not seen.
func (d *describer) join(frame changelog.Frame) []byte {
	if frame.Parts == 1 {
		return frame.Payload
	}
	switch {
	case frame.Part == 1:
		d.parts, d.next, d.crc = append(d.parts[:0], frame.Payload...), 2, frame.BatchCRC
		return nil
	case frame.Part != d.next || frame.BatchCRC != d.crc:
		return nil
	}
	d.parts = append(d.parts, frame.Payload...)
	d.next++
	if frame.Part < frame.Parts {
		return nil
	}
	return d.parts
}

// describe counts the keys of a batch.
func (r *Row) describe(record []byte) error {
	batch, err := chaindata.ParseBatch(record)
	if err != nil {
		return err
	}
	for op := range batch.Ops() {
		kind, number, _ := chaindata.Classify(op.Key)
		counts := &r.Puts
		if op.Delete {
			counts = &r.Deletes
		}
		if *counts == nil {
			*counts = make(map[string]int)
		}
		(*counts)[kind.String()]++
		if !op.Delete && (kind == chaindata.CanonicalHash || kind == chaindata.Header) {
			r.Block = &number
		}
	}
	return nil
}

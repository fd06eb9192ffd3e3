package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/replica"
)

// tape is a change log in a memory-mapped file: reading it costs the same to whoever reads, and it does not weigh on
// the garbage collector. It implements replica.ChangeLog.
type tape struct {
	mapped  []byte
	starts  []int // where each entry's message begins in mapped
	entries []changelog.Entry
	records [][]byte // the batches' records, joined
	last    uint64   // sequence
}

// openLog takes brokers as --kafka.brokers does.
func openLog(ctx context.Context, brokers, cluster string) (*changelog.Log, error) {
	return changelog.Open(ctx, changelog.Options{Brokers: strings.Split(brokers, ","), Cluster: cluster, ClientID: "drover-bench"})
}

// record copies the change log to the file at path.
func record(ctx context.Context, brokers, path string) (*tape, error) {
	log, err := openLog(ctx, brokers, clusterName)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	first, next, err := log.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	w, err := newTapeWriter(path)
	if err != nil {
		return nil, err
	}
	err = log.ReadRange(ctx, first, next, func(e changelog.Entry) error {
		if e.Err != nil {
			return e.Err
		}
		return w.add(e)
	})
	return w.finish(err)
}

// tapeWriter makes a tape of entries.
type tapeWriter struct {
	file *os.File
	out  *bufio.Writer
	tape *tape
}

func newTapeWriter(path string) (*tapeWriter, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &tapeWriter{file: file, out: bufio.NewWriterSize(file, 1<<20), tape: new(tape)}, nil
}

func (w *tapeWriter) add(e changelog.Entry) error {
	n, err := w.out.Write(e.Frame.AppendTo(nil))
	e.Size, e.Frame.Payload = n, nil
	w.tape.entries = append(w.tape.entries, e)
	return err
}

// finish takes the error of what was written so far.
func (w *tapeWriter) finish(err error) (*tape, error) {
	defer w.file.Close()
	if err == nil {
		err = w.out.Flush()
	}
	if err == nil && len(w.tape.entries) == 0 {
		err = errors.New("the change log is empty")
	}
	if err != nil {
		return nil, err
	}
	return w.tape, w.tape.load(w.file)
}

// load maps the file and finds frames and batches in it.
func (t *tape) load(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if t.mapped, err = syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED|syscall.MAP_POPULATE); err != nil {
		return fmt.Errorf("mapping %s: %w", file.Name(), err)
	}
	at := 0
	sequencer := changelog.NewSequencer(changelog.Position{Cluster: clusterName, Timeline: 1, Sequence: t.entries[0].Frame.First - 1, Offset: -1})
	for i := range t.entries {
		e := &t.entries[i]
		e.HighWater = int64(len(t.entries)) + t.entries[0].Offset
		t.starts = append(t.starts, at)
		at += e.Size
		if e.Frame, err = changelog.Decode(t.message(i)); err != nil {
			return err
		}
		event, err := sequencer.Next(*e)
		if err != nil {
			return err
		}
		t.last = event.Position.Sequence
		if event.Kind == changelog.EventBatch {
			record := event.Record
			if e.Frame.Parts > 1 {
				record = bytes.Clone(record) // assembled in a buffer of the sequencer's
			}
			t.records = append(t.records, record)
		}
	}
	return nil
}

func (t *tape) message(i int) []byte { return t.mapped[t.starts[i] : t.starts[i]+t.entries[i].Size] }

func (t *tape) close() error { return syscall.Munmap(t.mapped) }

// Join implements replica.ChangeLog, for databases that stand at the tape's start.
func (t *tape) Join(_ context.Context, at changelog.Position) (int64, error) {
	return max(t.entries[0].Offset, at.Offset+1), nil
}

// Bounds implements replica.ChangeLog.
func (t *tape) Bounds(context.Context) (first, next int64, err error) {
	return t.entries[0].Offset, t.entries[0].Offset + int64(len(t.entries)), nil
}

// Tail implements replica.ChangeLog.
func (t *tape) Tail(context.Context) (changelog.Tail, error) {
	return changelog.Tail{
		First: t.entries[0].Offset, Next: t.entries[0].Offset + int64(len(t.entries)),
		Timeline: 1, Newest: 1, Sequence: t.last,
	}, nil
}

// Read implements replica.ChangeLog.
func (t *tape) Read(offset int64) replica.EntryReader {
	return &tapeReader{tape: t, next: int(offset - t.entries[0].Offset)}
}

type tapeReader struct {
	tape *tape
	next int
}

// Next checks the frame's checksum, as reading from Kafka does.
func (r *tapeReader) Next(ctx context.Context) (changelog.Entry, error) {
	if r.next >= len(r.tape.entries) {
		<-ctx.Done()
		return changelog.Entry{}, ctx.Err()
	}
	e := r.tape.entries[r.next]
	var err error
	e.Frame, err = changelog.Decode(r.tape.message(r.next))
	r.next++
	return e, err
}

func (r *tapeReader) Close() error { return nil }

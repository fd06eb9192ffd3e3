package loginspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
)

// memoryLog is a change log in memory; it counts reads.
type memoryLog struct {
	entries []changelog.Entry
	reads   int
}

func (l *memoryLog) Bounds(context.Context) (int64, int64, error) {
	return 0, int64(len(l.entries)), nil
}

func (l *memoryLog) Tail(context.Context) (changelog.Tail, error) {
	return changelog.Tail{Timeline: 1}, nil
}

func (l *memoryLog) FindSequence(_ context.Context, _, seq uint64) (int64, error) {
	for _, e := range l.entries {
		if e.Frame.Kind == changelog.KindBatch && e.Frame.Last() > seq {
			return e.Offset, nil
		}
	}
	return int64(len(l.entries)), nil
}

func (l *memoryLog) ReadRange(_ context.Context, from, to int64, fn func(changelog.Entry) error) error {
	for ; from < to; from++ {
		l.reads++
		if err := fn(l.entries[from]); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) add(frames ...changelog.Frame) {
	for _, f := range frames {
		l.entries = append(l.entries, changelog.Entry{Offset: int64(len(l.entries)), Frame: f, Size: f.EncodedLen()})
	}
}

// record makes a journal record of puts of the given keys.
func record(first uint64, keys ...string) []byte {
	data := binary.LittleEndian.AppendUint64(nil, first)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(keys)))
	for _, key := range keys {
		data = append(data, 1, byte(len(key)))
		data = append(data, key...)
		data = append(data, 1, 'v')
	}
	return data
}

func canonicalKey(number uint64) string {
	return "h" + string(binary.BigEndian.AppendUint64(nil, number)) + "n"
}

// chain is a log with a head for each block, trie nodes between them, and heartbeats.
func chain(blocks int) *memoryLog {
	log := &memoryLog{}
	at := time.Unix(1_700_000_000, 0)
	log.add(changelog.StartFrame(1, changelog.TimelineStart{Cluster: "c", Reason: changelog.ReasonInitial}, at))
	seq := uint64(1)
	for number := range blocks {
		for range 3 {
			log.add(changelog.SplitBatch(1, seq, 1, record(seq, strings.Repeat("t", 32)), 0, at)...)
			seq++
		}
		log.add(changelog.SplitBatch(1, seq, 2, record(seq, canonicalKey(uint64(number)), "LastBlock"), 0, at)...)
		seq += 2
		log.add(changelog.HeartbeatFrame(1, seq-1, changelog.Heartbeat{Cluster: "c", SourceAlive: true}, at))
	}
	return log
}

func inspect(t *testing.T, opts Options) string {
	t.Helper()
	var out bytes.Buffer
	opts.Out = &out
	inspector, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := inspector.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func pointer[T any](v T) *T { return &v }

func TestRowsSayWhatGethWrote(t *testing.T) {
	text := inspect(t, Options{Log: chain(2), Offset: pointer(int64(0))})
	for _, want := range []string{
		"OFFSET", "timeline 1 of cluster c starts (initial) at sequence 1",
		"trie node", "block 1: canonical hash, head block", "heartbeat", "peers 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestBlockIsFoundByHalving(t *testing.T) {
	log := chain(1000)
	var row Row
	text := inspect(t, Options{Log: log, Block: pointer(uint64(777)), Limit: 1, JSON: true})
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		t.Fatal(err)
	}
	if row.Block == nil || *row.Block != 777 || row.Puts["head block"] != 1 {
		t.Errorf("row %s", text)
	}
	if log.reads > 150 {
		t.Errorf("%d reads for a log of %d frames", log.reads, len(log.entries))
	}
}

func TestBlocksOutsideTheLogAreAnError(t *testing.T) {
	for _, number := range []uint64{5, 2_000} {
		log := chain(1000)
		log.entries = log.entries[100:]
		for i := range log.entries {
			log.entries[i].Offset = int64(i)
		}
		inspector, err := New(Options{Log: log, Block: &number, Out: &bytes.Buffer{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := inspector.Run(context.Background()); err == nil || !strings.Contains(err.Error(), fmt.Sprint(number)) {
			t.Errorf("block %d: error %v", number, err)
		}
	}
}

func TestSequenceAndLimitChooseFrames(t *testing.T) {
	var row Row
	text := inspect(t, Options{Log: chain(10), Sequence: pointer(uint64(7)), Limit: 1, JSON: true})
	if err := json.Unmarshal([]byte(text), &row); err != nil || row.First > 7 || row.First+uint64(row.Count) <= 7 {
		t.Errorf("row %s (%v) does not carry sequence 7", text, err)
	}
	if lines := strings.Count(inspect(t, Options{Log: chain(10), Limit: 4}), "\n"); lines != 5 {
		t.Errorf("%d lines, want a heading and the last 4 frames", lines)
	}
}

func TestPartsAreJoinedForTheLastRow(t *testing.T) {
	log := &memoryLog{}
	keys := make([]string, 50)
	for i := range keys {
		keys[i] = strings.Repeat(string(rune('A'+i%26)), 32)
	}
	log.add(changelog.SplitBatch(1, 1, 50, record(1, keys...), 400, time.Now())...)
	text := inspect(t, Options{Log: log, Offset: pointer(int64(0))})
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) < 4 || !strings.Contains(lines[len(lines)-1], "trie node ×50") || strings.Contains(lines[1], "trie node") {
		t.Errorf("%s", text)
	}
	// Begun in the middle, the keys cannot be told, and nothing false is said.
	if text := inspect(t, Options{Log: log, Offset: pointer(int64(1))}); strings.Contains(text, "trie node") {
		t.Errorf("%s", text)
	}
}

func TestBadFramesAreShownAndTheListingGoesOn(t *testing.T) {
	log := chain(1)
	log.entries[1] = changelog.Entry{Offset: 1, Err: changelog.ErrBadFrame, Size: 3}
	text := inspect(t, Options{Log: log, Offset: pointer(int64(0))})
	if !strings.Contains(text, "bad frame") || !strings.Contains(text, "heartbeat") {
		t.Errorf("%s", text)
	}
}

func TestStartsExcludeOneAnother(t *testing.T) {
	if _, err := New(Options{Log: chain(1), Offset: pointer(int64(0)), Block: pointer(uint64(1))}); err == nil {
		t.Error("two starts were accepted")
	}
}

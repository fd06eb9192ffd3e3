package kafkae2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// audit is what stands on a topic of one timeline.
type audit struct {
	batches    int    // that count
	duplicates int    // frames that were sent again
	last       uint64 // sequence

	whole    map[uint64]identity // batches by their first sequence
	attempts map[attempt]uint32  // how many parts of a batch cut so were seen in order
}

type identity struct{ count, crc uint32 }

type attempt struct {
	identity
	first uint64
	parts uint32
}

// auditTopic checks every frame by arithmetic of its own: the sequences of the batches join without a hole from the base
// to the end, and what stands there twice is the same both times.
func auditTopic(messages [][]byte) (*audit, error) {
	a := &audit{whole: make(map[uint64]identity), attempts: make(map[attempt]uint32)}
	for i, message := range messages {
		f, err := changelog.Decode(message)
		if err != nil {
			return a, fmt.Errorf("message %d: %w", i, err)
		}
		switch f.Kind {
		case changelog.KindTimelineStart:
			if i > 0 {
				return a, fmt.Errorf("message %d: a second timeline", i)
			}
			a.last = f.First - 1
		case changelog.KindHeartbeat:
			if f.First > a.last+1 {
				return a, fmt.Errorf("message %d: a heartbeat at sequence %d, the batches end at %d", i, f.First, a.last)
			}
		case changelog.KindBatch:
			if err := a.batch(&f); err != nil {
				return a, fmt.Errorf("message %d: %w", i, err)
			}
		}
	}
	return a, nil
}

func (a *audit) batch(f *changelog.Frame) error {
	id := identity{count: f.Count, crc: f.BatchCRC}
	if f.First <= a.last {
		if a.whole[f.First] != id {
			return fmt.Errorf("sequence %d stands there twice, and differs", f.First)
		}
		a.duplicates++
		return nil
	}
	if f.First != a.last+1 {
		return fmt.Errorf("a hole: sequence %d follows on %d", f.First, a.last)
	}
	cut := attempt{id, f.First, f.Parts}
	switch seen := a.attempts[cut]; {
	case f.Part <= seen:
		a.duplicates++
	case f.Part == seen+1:
		a.attempts[cut] = f.Part
	default:
		return fmt.Errorf("a hole: part %d of sequence %d follows on part %d", f.Part, f.First, seen)
	}
	if f.Part == f.Parts {
		a.whole[f.First] = id
		a.batches++
		a.last = f.Last()
	}
	return nil
}

// requireOnce checks that the topic holds all that the master's database has, and that a replica that reads it is given
// each batch once. Nobody has the database open.
func (c *cluster) requireOnce(t *testing.T) *audit {
	t.Helper()
	found, err := auditTopic(c.ReadTopic(t))
	if err != nil {
		t.Fatal(err)
	}
	state := rig.Must(chaindata.Inspect(harness.Chaindata(c.Master)))(t)
	if found.last != state.Sequence {
		t.Fatalf("the topic goes up to sequence %d, the master's database to %d", found.last, state.Sequence)
	}
	if given := c.deliver(t); given != found.batches {
		t.Fatalf("a replica is given %d batches, the topic holds %d", given, found.batches)
	}
	return found
}

// deliver counts the batches that a sequencer gives to a replica of the beginning.
func (c *cluster) deliver(t *testing.T) (batches int) {
	t.Helper()
	log := c.OpenLog(t)
	first, next, err := log.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var sequencer *changelog.Sequencer
	last := uint64(0)
	err = log.ReadRange(t.Context(), first, next, func(e changelog.Entry) error {
		if sequencer == nil { // the first frame is the start of the timeline
			last = e.Frame.First - 1
			sequencer = changelog.NewSequencer(changelog.Position{Cluster: c.Name, Timeline: 1, Sequence: last, Offset: -1})
		}
		event, err := sequencer.Next(e)
		if err == nil && event.Kind == changelog.EventBatch {
			batches++
			if event.First != last+1 {
				return fmt.Errorf("sequence %d was given after %d", event.First, last)
			}
			last = event.First + uint64(event.Count) - 1
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return batches
}

// repeat sends frames of the past again, as a broker's delayed answer makes a producer do.
func (c *cluster) repeat(t *testing.T, n int, random *rand.Rand) {
	t.Helper()
	var batches [][]byte
	for _, message := range c.ReadTopic(t) {
		if f := rig.Frame(t, message); f.Kind == changelog.KindBatch {
			batches = append(batches, message)
		}
	}
	for range n {
		from := random.IntN(len(batches))
		c.WriteTopic(t, batches[from:min(from+1+random.IntN(3), len(batches))]...)
	}
}

// batchFrame is a frame as a master makes it of a batch that stands in the journal at a sequence.
func batchFrame(timeline, first uint64, batch *leveldb.Batch) changelog.Frame {
	record := binary.LittleEndian.AppendUint64(nil, first)
	record = append(binary.LittleEndian.AppendUint32(record, uint32(batch.Len())), batch.Dump()...)
	return changelog.SplitBatch(timeline, first, uint32(batch.Len()), record, len(record), time.Now())[0]
}

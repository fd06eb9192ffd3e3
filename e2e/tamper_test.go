package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// tampering is a topic's fault.
type tampering struct {
	name string
	// change damages the messages; at is the index of a batch in the middle.
	// It returns the sequence up to which a replica may go.
	change func(t *testing.T, messages [][]byte, at int) (changed [][]byte, upTo uint64)
	code   int
	says   []string
}

var tamperings = []tampering{
	{"nothing", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		return messages, 0
	}, 0, nil},
	{"every frame sent twice", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		var twice [][]byte
		for _, message := range messages {
			twice = append(twice, message, message)
		}
		return twice, 0
	}, 0, nil},
	{"a tail sent again", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		return append(slices.Clone(messages), messages[at:]...), 0
	}, 0, nil},
	{"a frame lost", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		return slices.Delete(slices.Clone(messages), at, at+1), before(t, messages[at])
	}, 6, []string{"hole"}},
	{"the last batch lost, a heartbeat later", func(t *testing.T, messages [][]byte, _ int) ([][]byte, uint64) {
		at := lastBatch(t, messages)
		if at == len(messages)-1 {
			t.Fatal("no frame follows the last batch")
		}
		return slices.Delete(slices.Clone(messages), at, at+1), before(t, messages[at])
	}, 6, []string{"hole"}},
	{"two frames swapped", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		swapped := slices.Clone(messages)
		swapped[at], swapped[at+1] = swapped[at+1], swapped[at]
		return swapped, before(t, messages[at])
	}, 6, []string{"hole"}},
	{"one part of a batch lost", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		return slices.Replace(slices.Clone(messages), at, at+1, slices.Delete(parts(t, messages[at]), 1, 2)...), before(t, messages[at])
	}, 6, []string{"hole"}},
	{"a batch in parts", func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		return slices.Replace(slices.Clone(messages), at, at+1, parts(t, messages[at])...), 0
	}, 0, nil},
	{"an empty message", corrupt(func([]byte) []byte { return nil }), 5, []string{"offset"}},
	{"a truncated frame", corrupt(func(m []byte) []byte { return m[:len(m)-1] }), 5, []string{"offset"}},
	{"a frame cut within its header", corrupt(func(m []byte) []byte { return m[:20] }), 5, []string{"offset"}},
	{"an oversized frame", corrupt(func(m []byte) []byte { return append(m, make([]byte, 500)...) }), 5, []string{"offset"}},
	{"a flipped bit", corrupt(func(m []byte) []byte { m[len(m)-40] ^= 4; return m }), 5, []string{"offset", "checksum"}},
	{"a frame of a future version", corrupt(func(m []byte) []byte { m[4] = 77; return m }), 5, []string{"offset", "version 77", "upgrade"}},
	{"somebody else's message", corrupt(func([]byte) []byte { return []byte(`{"hello": "world"}`) }), 5, []string{"offset"}},
}

func corrupt(change func(message []byte) []byte) func(*testing.T, [][]byte, int) ([][]byte, uint64) {
	return func(t *testing.T, messages [][]byte, at int) ([][]byte, uint64) {
		changed := slices.Clone(messages)
		changed[at] = change(slices.Clone(messages[at]))
		return changed, before(t, messages[at])
	}
}

// before is the last sequence ahead of the frame.
func before(t *testing.T, message []byte) uint64 {
	t.Helper()
	frame := rig.Frame(t, message)
	return frame.First - 1
}

func lastBatch(t *testing.T, messages [][]byte) int {
	t.Helper()
	for i, message := range slices.Backward(messages) {
		if frame := rig.Frame(t, message); frame.Kind == changelog.KindBatch {
			return i
		}
	}
	t.Fatal("no batch")
	return 0
}

// parts cuts a batch anew, in four.
func parts(t *testing.T, message []byte) [][]byte {
	t.Helper()
	frame := rig.Frame(t, message)
	if frame.Parts != 1 {
		t.Fatalf("the batch is in %d parts already", frame.Parts)
	}
	var cut [][]byte
	for _, part := range changelog.SplitBatch(frame.Timeline, frame.First, frame.Count, frame.Payload, len(frame.Payload)/4+1, frame.Time) {
		cut = append(cut, part.AppendTo(nil))
	}
	if len(cut) < 3 {
		t.Fatalf("the batch of %d bytes was cut in %d parts", len(frame.Payload), len(cut))
	}
	return cut
}

// middleBatch is the index of a batch of some size, with batches on both sides.
func middleBatch(t *testing.T, messages [][]byte) int {
	t.Helper()
	for i := len(messages) / 2; i < len(messages)-2; i++ {
		frame, next := rig.Frame(t, messages[i]), rig.Frame(t, messages[i+1])
		if frame.Kind == changelog.KindBatch && len(frame.Payload) > 1000 && next.Kind == changelog.KindBatch {
			return i
		}
	}
	t.Fatal("no batch in the middle of the topic")
	return 0
}

// Faults 1 and 7: a frame or a part lost, repeated, out of order or damaged on
// the topic. The replica stops with the code and the reason, applies nothing
// behind the fault, and goes on once it gets the true frames.
func TestDamagedTopicStopsTheReplica(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	initial := c.CopyAtRest(t, "initial", 1)
	c.ImportUnderCapture(t, 5*time.Minute, f.Path())
	// A second run leaves a heartbeat behind the last batch.
	c.ImportUnderCapture(t, time.Minute, f.Path())
	messages := c.ReadTopic(t)
	at := middleBatch(t, messages)

	for i, fault := range tamperings {
		t.Run(strings.ReplaceAll(fault.name, " ", "-"), func(t *testing.T) {
			changed, upTo := fault.change(t, messages, at)
			other := c.anotherBroker(t, fmt.Sprintf("fault-%d", i))
			other.WriteTopic(t, changed...)
			datadir := filepath.Join(other.Dir, "replica")
			rig.CopyTree(t, initial, datadir)
			rig.RequireExit(t, fault.code, other.ReplicaCommand(t, datadir, rig.Port(t), "--until-synced"), fault.says...)
			if fault.code != 0 {
				if at := rig.Position(t, datadir); at.Sequence != upTo {
					t.Errorf("the replica stands at %s, want sequence %d: the last before the fault", at, upTo)
				}
				// Damage found once is found again.
				rig.RequireExit(t, fault.code, other.ReplicaCommand(t, datadir, rig.Port(t), "--until-synced"), fault.says...)
				c.Sync(t, time.Minute, datadir)
			}
			rig.RequireEqual(t, c.Master, datadir)
			rig.RemoveTree(t, datadir)
		})
	}
}

// Fault 1 while serving: a replica that has been ready meets the hole live.
func TestHoleStopsAServingReplica(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	master := c.StartMaster(t, "--heartbeat.interval", "100ms")
	master.Feed(t, f.Blocks[:40]...)
	master.End(t)
	messages := c.ReadTopic(t)
	alive, at := heartbeatThenBatch(t, messages)

	other := c.anotherBroker(t, "live")
	other.WriteTopic(t, messages[:alive+1]...)
	// What the master said last is old by now, which is not what is tested here.
	replica := other.StartReplica(t, datadir, "--ready.max-age", "0", "--ready.max-heartbeat-age", "1h")
	replica.WaitReady(t, 2*time.Minute)
	other.WriteTopic(t, slices.Delete(slices.Clone(messages), at, at+1)[alive+1:]...)
	rig.RequireEnd(t, 6, replica.Process, "hole", "offset")
	if got, want := rig.Position(t, datadir).Sequence, before(t, messages[at]); got != want {
		t.Errorf("the replica stands at sequence %d, want %d", got, want)
	}
	c.Sync(t, time.Minute, datadir)
	rig.RequireEqual(t, c.Master, datadir)
}

// heartbeatThenBatch finds the last heartbeat of a living geth that batches
// follow, and the first of those.
func heartbeatThenBatch(t *testing.T, messages [][]byte) (heartbeat, batch int) {
	t.Helper()
	heartbeat, batch = -1, -1
	for i := lastBatch(t, messages) - 1; i > 0 && heartbeat < 0; i-- {
		frame := rig.Frame(t, messages[i])
		switch frame.Kind {
		case changelog.KindBatch:
			batch = i
		case changelog.KindHeartbeat:
			if batch >= 0 && rig.Must(frame.Heartbeat())(t).SourceAlive {
				heartbeat = i
			}
		}
	}
	if heartbeat < 0 {
		t.Fatal("no heartbeat between two batches")
	}
	return heartbeat, batch
}

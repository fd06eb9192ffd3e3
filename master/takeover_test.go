package master

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// replayInto does what replica --until-synced does, without geth: the stream's batches go into the database with the
// position, and a copy without a position stands at its own sequence.
func replayInto(ctx context.Context, broker, datadir string) (at changelog.Position, err error) {
	dir := chaindataDir(datadir)
	state, err := chaindata.Inspect(dir)
	if err != nil {
		return at, err
	}
	marker, err := chaindata.ReadMarker(dir)
	if err != nil {
		return at, err
	}
	if marker.IsSource(dir) {
		return at, errors.New("the replay was let loose on a source")
	}
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		return at, err
	}
	defer db.Close()
	if stored, err := db.Get(changelog.PositionKey, nil); err == nil {
		if at, err = changelog.UnmarshalPosition(stored); err != nil {
			return at, err
		}
	}
	if marker.Timeline > at.Timeline {
		at = changelog.Position{Cluster: marker.Cluster, Timeline: marker.Timeline, Sequence: state.Sequence, Offset: -1}
		if marker.Sequence != 0 && marker.Role != chaindata.RoleSource {
			at.Sequence = marker.Sequence
		}
		if err := db.Put(changelog.PositionKey, at.Marshal(), nil); err != nil {
			return at, err
		}
	}
	log, err := changelog.Open(ctx, changelog.Options{Brokers: []string{broker}, Cluster: testCluster})
	if err != nil {
		return at, err
	}
	defer log.Close()
	start, err := log.Join(ctx, at)
	if err != nil {
		return at, err
	}
	at.Offset = max(at.Offset, start-1)
	_, next, err := log.Bounds(ctx)
	if err != nil {
		return at, err
	}
	sequencer := changelog.NewSequencer(at)
	err = log.ReadRange(ctx, start, next, func(e changelog.Entry) error {
		event, err := sequencer.Next(e)
		if err != nil {
			return err
		}
		batch := new(leveldb.Batch)
		if event.Kind == changelog.EventBatch {
			record, err := chaindata.ParseBatch(event.Record)
			if err != nil {
				return err
			}
			for op := range record.Ops() {
				if op.Delete {
					batch.Delete(op.Key)
				} else {
					batch.Put(op.Key, op.Value)
				}
			}
		}
		batch.Put(changelog.PositionKey, event.Position.Marshal())
		return db.Write(batch, nil)
	})
	return sequencer.Position(), err
}

// catchUp brings a copy to the topic's end as a replica does.
func catchUp(t testing.TB, broker, datadir string) changelog.Position {
	t.Helper()
	at, err := replayInto(testContext(t), broker, datadir)
	if err != nil {
		t.Fatalf("a replica stops: %v", err)
	}
	return at
}

func copyOf(t testing.TB, datadir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(chaindataDir(to)), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := chaindata.Copy(testContext(t), chaindataDir(datadir), chaindataDir(to), chaindata.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	return to
}

// cpOf is a copy made by cp, with the marker as it is.
func cpOf(t testing.TB, datadir string) string {
	t.Helper()
	to := t.TempDir()
	if out, err := exec.Command("cp", "-a", filepath.Join(datadir, "geth"), to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

func content(t testing.TB, datadir string) map[string]string {
	t.Helper()
	db, err := leveldb.OpenFile(chaindataDir(datadir), &opt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	keys := map[string]string{}
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		if string(it.Key()) != string(changelog.PositionKey) {
			keys[string(it.Key())] = string(it.Value())
		}
	}
	return keys
}

func sameContent(t testing.TB, a, b string) {
	t.Helper()
	left, right := content(t, a), content(t, b)
	wrong := 0
	for key, value := range left {
		if other, ok := right[key]; !ok || other != value {
			wrong++
		}
	}
	if len(left) != len(right) || wrong > 0 || len(left) == 0 {
		t.Fatalf("databases differ: %d and %d keys, %d of the first differ", len(left), len(right), wrong)
	}
	t.Logf("databases equal: %d keys", len(left))
}

// fleet is a stopped master on timeline 1, and copies made while it ran.
type fleet struct {
	broker, source string
	log            *changelog.Log
	copies         []string
}

func newFleet(t testing.TB, copies int) *fleet {
	t.Helper()
	f := &fleet{broker: startBroker(t), source: t.TempDir()}
	f.log = openLog(t, f.broker)
	m := startMaster(t, f.config(f.source, "--pause-us=200", "--buffer=8388608"))
	gethOf(t, m, f.source)
	untilPublished(t, m, f.log)
	for range copies {
		f.copies = append(f.copies, copyOf(t, f.source))
	}
	untilPublished(t, m, f.log)
	if code := m.stop(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, m.output())
	}
	return f
}

func (f *fleet) config(datadir string, gethFlags ...string) masterConfig {
	return masterConfig{Broker: f.broker, Datadir: datadir, Geth: fake(datadir, gethFlags...), Window: 100 * time.Millisecond,
		HeartbeatInterval: 50 * time.Millisecond}
}

func (f *fleet) takeover(datadir string, gethFlags ...string) masterConfig {
	c := f.config(datadir, gethFlags...)
	c.Takeover = true
	return c
}

func run(t testing.TB, want int, c masterConfig, says string) {
	t.Helper()
	m := startMaster(t, c)
	if code := m.wait(t); code != want || !strings.Contains(m.output(), says) {
		t.Fatalf("exit code %d, want %d and %q: %s", code, want, says, m.output())
	}
}

func (f *fleet) tail(t testing.TB) changelog.Tail {
	t.Helper()
	tail, err := f.log.Tail(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return tail
}

func TestTakeoverIsJoinedByTheOtherReplicas(t *testing.T) {
	f := newFleet(t, 2)
	r1, r2 := f.copies[0], f.copies[1]
	catchUp(t, f.broker, r2)
	run(t, 2, f.config(r1, "--batches=1"), "--takeover only")
	run(t, 0, f.takeover(r1, "--batches=200", "--pause-us=0"), "those on timeline 1 go on")
	catchUp(t, f.broker, r2)
	sameContent(t, r1, r2)
	if tail := f.tail(t); tail.Timeline != 2 {
		t.Fatalf("timeline %d", tail.Timeline)
	}
	// It is a source like any other from now on, with and without the flag.
	run(t, 0, f.config(r1, "--batches=50", "--pause-us=0"), "")
	run(t, 0, f.takeover(r1, "--batches=50", "--pause-us=0"), "no new timeline is needed")
	catchUp(t, f.broker, r2)
	sameContent(t, r1, r2)
	if tail := f.tail(t); tail.Timeline != 2 {
		t.Errorf("timeline %d after restarts", tail.Timeline)
	}
	// Copies of it stand at its own sequence, whatever position its database holds from before.
	for _, copied := range []string{copyOf(t, r1), cpOf(t, r1)} {
		run(t, 0, f.config(r1, "--batches=50", "--pause-us=0"), "")
		run(t, 2, f.config(copied, "--batches=1"), "--takeover only")
	}
	run(t, 4, f.config(f.source, "--batches=1"), "timeline 2")
	run(t, 4, f.takeover(f.source, "--batches=1"), "timeline 2")
}

func TestCopiesOfAPromotedSourceAreOfItsTimeline(t *testing.T) {
	f := newFleet(t, 1)
	r1 := f.copies[0]
	run(t, 0, f.takeover(r1, "--batches=100", "--pause-us=0"), "")
	c := copyOf(t, r1)
	run(t, 0, f.config(r1, "--batches=100", "--pause-us=0"), "")
	if at := catchUp(t, f.broker, c); at.Timeline != 2 {
		t.Errorf("the copy is at %s", at)
	}
	sameContent(t, r1, c)
	run(t, 0, f.takeover(c, "--batches=100", "--pause-us=0"), "")
	again := copyOf(t, c)
	run(t, 0, f.config(c, "--batches=100", "--pause-us=0"), "")
	if at := catchUp(t, f.broker, again); at.Timeline != 3 {
		t.Errorf("the copy's copy is at %s", at)
	}
	sameContent(t, c, again)
}

var takeoverSteps = []string{"prepared", "replayed", "settled", "beginning", "started", "marked"}

func TestATakeoverKilledAtAnyStepCanBeRepeated(t *testing.T) {
	for _, step := range takeoverSteps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 2)
			r1, r2 := f.copies[0], f.copies[1]
			c := f.takeover(r1, "--batches=100", "--pause-us=0")
			c.KillAt = step
			run(t, -1, c, "")
			if step == "started" {
				catchUp(t, f.broker, r2) // crosses the timeline that nobody came to write
			}
			plain := f.config(r1, "--batches=100", "--pause-us=0")
			if step == "marked" {
				run(t, 0, plain, "")
			} else {
				run(t, 2, plain, "--takeover only")
				run(t, 0, f.takeover(r1, "--batches=100", "--pause-us=0"), "")
			}
			catchUp(t, f.broker, r2)
			sameContent(t, r1, r2)
			want := uint64(2)
			if step == "started" {
				want = 3
			}
			if tail := f.tail(t); tail.Timeline != want {
				t.Errorf("timeline %d, want %d", tail.Timeline, want)
			}
		})
	}
}

// losePower cuts the newest journal in the middle, as a machine does that never wrote the kernel's pages to the disk.
func losePower(t testing.TB, datadir string) {
	t.Helper()
	before := currentSequence(t, datadir)
	state, err := chaindata.Inspect(chaindataDir(datadir))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(chaindataDir(datadir), fmt.Sprintf("%06d.log", state.Journals[len(state.Journals)-1]))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// A copy, since the spool's links share the file.
	content, err := os.ReadFile(path)
	if err == nil {
		err = errors.Join(os.Remove(path), os.WriteFile(path, content[:info.Size()/2], 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	if after := currentSequence(t, datadir); after >= before {
		t.Fatalf("the fault did not fire: sequence %d before, %d after", before, after)
	}
}

func TestASourceThatLostWritesReplaysThemAndOpensATimeline(t *testing.T) {
	for _, step := range append([]string{""}, takeoverSteps...) {
		t.Run("killed at "+step, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 1)
			losePower(t, f.source)
			lost := currentSequence(t, f.source)
			plain := f.config(f.source, "--batches=100", "--pause-us=0")
			if step != "" {
				killed := plain
				killed.KillAt = step
				run(t, -1, killed, "lost sequences")
			}
			run(t, 0, plain, "")
			t.Logf("lost %d to %d", lost, f.tail(t).Sequence)
			catchUp(t, f.broker, f.copies[0])
			sameContent(t, f.source, f.copies[0])
			if tail := f.tail(t); tail.Timeline != 2 {
				t.Errorf("timeline %d", tail.Timeline)
			}
			run(t, 0, plain, "")
			catchUp(t, f.broker, f.copies[0])
			sameContent(t, f.source, f.copies[0])
		})
	}
}

func TestARecoveryThatCannotReplayEndsWithTheReason(t *testing.T) {
	f := newFleet(t, 0)
	losePower(t, f.source)
	opts := f.config(f.source, "--batches=1").options()
	opts.Replay = func(context.Context) (changelog.Position, error) {
		return changelog.Position{}, &changelog.NotRetainedError{FirstOffset: 9}
	}
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	assertErrorIs(t, m.Run(testContext(t)), changelog.ErrNotRetained, "first retained offset is 9")
}

func TestARecoveryDoesNotFightALiveMaster(t *testing.T) {
	f := newFleet(t, 0)
	twin := t.TempDir()
	if err := os.Rename(filepath.Join(cpOf(t, f.source), "geth"), filepath.Join(twin, "geth")); err != nil {
		t.Fatal(err)
	}
	// As a block device's snapshot would, the twin keeps the claim to be the source.
	if err := chaindata.WriteMarker(chaindataDir(twin), chaindata.Marker{Cluster: testCluster, Timeline: 1, Role: chaindata.RoleSource}); err != nil {
		t.Fatal(err)
	}
	m := startMaster(t, f.config(f.source, "--pause-us=200"))
	untilPublished(t, m, f.log)
	c := f.config(twin, "--batches=1")
	c.Window = testLimit
	run(t, 2, c, "another process goes on writing timeline 1")
	if code := m.stop(t); code != 0 {
		t.Errorf("the live master: exit code %d: %s", code, m.output())
	}
}

func TestTakeoverFromALiveMasterEndsIt(t *testing.T) {
	f := newFleet(t, 2)
	r1, r2 := f.copies[0], f.copies[1]
	old := startMaster(t, f.config(f.source, "--pause-us=200"))
	geth := gethOf(t, old, f.source)
	untilPublished(t, old, f.log)
	// Both are stopped in the middle of writing, as by a hypervisor.
	for _, pid := range []int{geth, old.Process.Pid} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	m := startMaster(t, f.takeover(r1, "--pause-us=500"))
	untilTimeline(t, m, f, 2)
	for _, pid := range []int{geth, old.Process.Pid} {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if code := old.wait(t); code != 4 || !gone(geth) {
		t.Errorf("the old master: exit code %d, geth gone: %v: %s", code, gone(geth), old.output())
	}
	untilPublished(t, m, f.log)
	if code := m.stop(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, m.output())
	}
	stale := 0
	first, next, err := f.log.Bounds(testContext(t))
	if err == nil {
		passed := false
		err = f.log.ReadRange(testContext(t), first, next, func(e changelog.Entry) error {
			passed = passed || e.Frame.Timeline == 2
			if passed && e.Frame.Timeline == 1 {
				stale++
			}
			return nil
		})
	}
	if err != nil || stale == 0 {
		t.Errorf("the fault did not fire: %d frames of the old master behind the boundary, %v", stale, err)
	}
	catchUp(t, f.broker, r2)
	sameContent(t, r1, r2)
}

func untilTimeline(t testing.TB, m *child, f *fleet, timeline uint64) {
	t.Helper()
	until(t, fmt.Sprintf("timeline %d", timeline), func() bool {
		if m.ended() {
			t.Fatalf("the master ended: %s", m.output())
		}
		return f.tail(t).Timeline == timeline
	})
}

// interrupted runs a takeover in this process, with fn in the place between its look at the topic's end and its start
// frame.
func interrupted(t testing.TB, f *fleet, datadir string, fn func(round int)) error {
	t.Helper()
	opts := f.takeover(datadir, "--batches=100", "--pause-us=0").options()
	opts.Stdout, opts.Logger = io.Discard, slog.New(slog.NewTextHandler(t.Output(), nil))
	round := 0
	opts.at = func(step string) {
		if step == "beginning" {
			round++
			fn(round)
		}
	}
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(testContext(t))
	if round == 0 {
		t.Error("the fault did not fire")
	}
	return err
}

// publish writes frames behind the drover's back.
func (f *fleet) publish(t testing.TB, frames ...changelog.Frame) {
	t.Helper()
	if _, err := f.log.NewPublisher(changelog.PublisherOptions{}).Publish(testContext(t), frames); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) batch(t testing.TB, timeline, first uint64, key string) []changelog.Frame {
	t.Helper()
	batch := new(leveldb.Batch)
	batch.Put([]byte(key), []byte("written by the old master"))
	record := append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, first), 1), batch.Dump()...)
	return changelog.SplitBatch(timeline, first, 1, record, 0, time.Now())
}

func TestFramesBetweenTheReplayAndTheStartMakeATakeoverStartOver(t *testing.T) {
	f := newFleet(t, 3)
	r1, r2, r3 := f.copies[0], f.copies[1], f.copies[2]
	last := f.tail(t).Sequence
	err := interrupted(t, f, r1, func(round int) {
		if round <= 2 {
			last++
			f.publish(t, f.batch(t, 1, last, fmt.Sprintf("late-%d", round))...)
			catchUp(t, f.broker, r3)
		}
		if round == 3 { // what the log says already does not count
			f.publish(t, changelog.HeartbeatFrame(1, last, changelog.Heartbeat{Cluster: testCluster}, time.Now()))
			f.publish(t, f.batch(t, 1, last, "late-2")...)
		}
		if round > 3 {
			t.Errorf("round %d", round)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	catchUp(t, f.broker, r2)
	catchUp(t, f.broker, r3)
	sameContent(t, r1, r2)
	sameContent(t, r1, r3)
	keys := content(t, r1)
	if keys["late-1"] == "" || keys["late-2"] == "" {
		t.Error("what the old master wrote before the boundary is missing")
	}
	if tail := f.tail(t); tail.Timeline != 4 {
		t.Errorf("timeline %d", tail.Timeline)
	}
}

func TestOfTwoTakeoversTheFirstOnTheTopicWins(t *testing.T) {
	f := newFleet(t, 3)
	r1, r2, r3 := f.copies[0], f.copies[1], f.copies[2]
	err := interrupted(t, f, r1, func(int) {
		run(t, 0, f.takeover(r2, "--batches=100", "--pause-us=0"), "")
	})
	assertErrorIs(t, err, changelog.ErrFenced, "timeline 2")
	run(t, 2, f.config(r1, "--batches=1"), "--takeover only")
	// The loser is a replica as before.
	catchUp(t, f.broker, r1)
	catchUp(t, f.broker, r3)
	sameContent(t, r2, r1)
	sameContent(t, r2, r3)
	run(t, 0, f.config(r2, "--batches=10", "--pause-us=0"), "")
}

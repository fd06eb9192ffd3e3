package schedule

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/snapshot"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// flaky is a Backend whose creates fail as told.
type flaky struct {
	*StoreBackend
	calls, failed int
	fails         func(n int) bool
}

func (f *flaky) Create(ctx context.Context, datadir string) (Made, error) {
	if f.calls++; f.fails(f.calls) {
		f.failed++
		return Made{}, errors.New("disk on fire")
	}
	return f.StoreBackend.Create(ctx, datadir)
}

// retained is a cluster whose topic drops frames after a few seconds.
type retained struct {
	t         *testing.T
	base      string
	log       *changelog.Log
	master    *master
	store     *snapshot.DirStore
	backend   *flaky
	bell      *bell
	retention time.Duration
}

func newRetained(t *testing.T, log *changelog.Log, retention time.Duration) *retained {
	base := t.TempDir()
	r := &retained{t: t, base: base, log: log, retention: retention, bell: new(bell)}
	r.master = newMaster(t, log, filepath.Join(base, "datadir"), retention)
	t.Cleanup(r.master.run(50 * time.Millisecond))
	var err error
	if r.store, err = snapshot.OpenDir(filepath.Join(base, "store")); err != nil {
		t.Fatal(err)
	}
	real, err := NewStore(StoreOptions{Cluster: testCluster, Store: r.store, Topic: log, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.backend = &flaky{StoreBackend: real, fails: func(int) bool { return false }}
	return r
}

func (r *retained) options() Options {
	return Options{
		Cluster: testCluster, Topic: r.log, Backend: r.backend, Source: Live(r.master.datadir), Notes: r.store, Node: "here", Alerter: r.bell,
		Interval: r.retention / 6, CheckEvery: r.retention / 40, RetryMin: r.retention / 20,
	}
}

// run runs a scheduler until stop is called.
func (r *retained) run(o Options) (stop func()) {
	s, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

func (r *retained) bootable() error { return bootable(r.t.Context(), r.store, r.log) }

// through asserts that replicas can be started at any time during so many retention periods, and that frames went.
func (r *retained) through(periods int) {
	r.t.Helper()
	within(r.t, r.retention, "the first snapshot", r.bootable)
	before := r.first()
	looks := 0
	for end := time.Now().Add(time.Duration(periods) * r.retention); time.Now().Before(end); looks++ {
		// A prune may remove the snapshot between the listing and the look.
		if err := r.bootable(); err != nil && r.bootable() != nil {
			state, _ := ReadState(r.t.Context(), r.store, testCluster)
			r.t.Fatalf("%v before the end: %v; the last runs: %+v", time.Until(end), err, state.Runs[max(0, len(state.Runs)-5):])
		}
		pause(r.t.Context(), r.retention/30)
	}
	r.t.Logf("%d looks in %d retention periods of %v; the topic began at offset %d, now at %d; %d creates, %d failed",
		looks, periods, r.retention, before, r.first(), r.backend.calls, r.backend.failed)
	if r.first() <= before {
		r.t.Error("no frame was dropped")
	}
}

func (r *retained) first() int64 {
	first, _, err := r.log.Bounds(r.t.Context())
	if err != nil {
		r.t.Error(err)
	}
	return first
}

// keepsBootable is fault 15 in real time: first with every third snapshot failing, then with all of them, without and with
// extension.
func keepsBootable(t *testing.T, log *changelog.Log, retention time.Duration, periods int) {
	r := newRetained(t, log, retention)
	r.backend.fails = func(n int) bool { return n%3 == 0 }
	stop := r.run(r.options())
	r.through(periods)
	stop()
	if r.backend.failed < 2 {
		t.Errorf("%d snapshots failed", r.backend.failed)
	}

	// Nothing but failures: an extended retention holds for three times as long as the topic's own.
	r.backend.fails = func(int) bool { return true }
	o := r.options()
	o.ExtendRetention, o.MaxRetention, o.CheckEvery = true, 100*retention, retention/60
	stop = r.run(o)
	for end := time.Now().Add(3 * retention); time.Now().Before(end); pause(t.Context(), retention/30) {
		if err := r.bootable(); err != nil {
			t.Fatalf("while the retention is extended: %v", err)
		}
	}
	if is, err := log.Retention(t.Context()); err != nil || is.Time < 3*retention {
		t.Errorf("the retention is %v, %v", is.Time, err)
	}
	if r.bell.first(AlertExtended, alert.Warning).IsZero() {
		t.Error("nobody was told")
	}
	r.backend.fails = func(int) bool { return false }
	within(t, 4*retention, "the retention is put back", func() error {
		is, err := log.Retention(t.Context())
		if err == nil && is.Time != retention {
			err = fmt.Errorf("it is %v", is.Time)
		}
		return err
	})
	if err := r.bootable(); err != nil {
		t.Error(err)
	}
	stop()

	// Without a scheduler the same ends in what a replica exits 3 for.
	within(t, 10*retention, "nothing is left", func() error {
		switch err := r.bootable(); {
		case err == nil:
			return errors.New("replicas can still be started")
		case !errors.Is(err, changelog.ErrNotRetained):
			t.Fatal(err)
		}
		return nil
	})
	o = r.options()
	r.backend.fails = func(int) bool { return true }
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := s.Once(deadline(t, time.Minute)); err == nil || report.Measured == nil || report.Measured.Condition != Lost {
		t.Errorf("%+v, %v", report.Measured, err)
	}
	if r.bell.first(AlertLost, alert.Critical).IsZero() {
		t.Error("nobody was told that it is lost")
	}
	if _, err := snapshot.Prune(t.Context(), snapshot.PruneOptions{Cluster: testCluster, Store: r.store, Keep: 1, FirstRetained: r.first(), Confirm: true}); !errors.Is(err, snapshot.ErrHeadroom) {
		t.Errorf("prune: %v", err)
	}
}

// Fault 15.
func TestReplicasCanBeStartedWhileRetentionPassesAndSnapshotsFail(t *testing.T) {
	t.Parallel()
	keepsBootable(t, openLog(t, embedded(t)), 5*time.Second, rounds(4))
}

func TestReplicasCanBeStartedWhileApacheKafkasRetentionPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	t.Parallel()
	k := localkafka.ForTest(t, localkafka.Options{Properties: localkafka.FastRetention()})
	log := openLog(t, k.Bootstrap(localkafka.Plaintext)...)
	if _, _, err := log.Ensure(deadline(t, time.Minute), changelog.TopicSpec{Retention: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := k.SetTopic(t.Context(), log.Topic(), "segment.ms", "500"); err != nil {
		t.Fatal(err)
	}
	keepsBootable(t, log, 10*time.Second, rounds(4))
}

// A scheduler's own replica that is too old for the topic starts anew; a datadir of somebody else's is not touched.
func TestAStaleReplicaOfTheSchedulersOwnStartsAnew(t *testing.T) {
	base := t.TempDir()
	var calls []string
	source, err := OwnReplica(ReplicaOptions{Datadir: filepath.Join(base, "own"), CatchUp: func(_ context.Context, datadir string) error {
		empty, err := snapshot.NeedsRestore(datadir)
		if err != nil {
			return err
		}
		if calls = append(calls, fmt.Sprint(empty)); !empty && len(calls) == 2 {
			return &changelog.NotRetainedError{FirstOffset: 7}
		}
		return writeFile(filepath.Join(datadir, "geth", "chaindata", "CURRENT"))
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		datadir, release, err := source.Prepare(t.Context())
		if err != nil || datadir != filepath.Join(base, "own") {
			t.Fatal(datadir, err)
		}
		release()
	}
	if got := fmt.Sprint(calls); got != "[true false true]" {
		t.Errorf("the datadir was empty: %s", got)
	}

	// Without a snapshot to start from it keeps what it has.
	source.(*ownReplica).told(&Measured{Headroom: Headroom{Condition: Lost, Reason: "the topic begins behind it"}})
	calls = calls[:1]
	if _, _, err := source.Prepare(t.Context()); !errors.Is(err, changelog.ErrNotRetained) || !strings.Contains(err.Error(), "take a snapshot of a running node") {
		t.Errorf("%v", err)
	}
	if empty, err := snapshot.NeedsRestore(filepath.Join(base, "own")); err != nil || empty {
		t.Errorf("the datadir was emptied, %v", err)
	}

	theirs := filepath.Join(base, "theirs")
	if err := writeFile(filepath.Join(theirs, "geth", "chaindata", "CURRENT")); err != nil {
		t.Fatal(err)
	}
	source, err = OwnReplica(ReplicaOptions{Datadir: theirs, CatchUp: func(context.Context, string) error { panic("called") }})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := source.Prepare(t.Context()); !errors.Is(err, ErrNotOurs) {
		t.Errorf("%v", err)
	}
}

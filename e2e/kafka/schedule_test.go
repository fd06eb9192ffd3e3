package kafkae2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness/rig"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

// retained is how long frames stay, once a scheduler is at work: short, but some times what a snapshot takes on a slow machine.
const retained = 30 * time.Second

// scheduled is a cluster with a store of snapshots.
type scheduled struct {
	*cluster
	log    *changelog.Log
	store  *snapshot.DirStore
	path   string
	master *rig.Node
	feeder *feeder
	stop   context.CancelFunc
}

// newScheduled starts a master that is fed, and makes a first usable snapshot.
// Each has a chain of its own, since they run side by side, with few transactions: what is verified grows with the chain.
func newScheduled(t *testing.T, name string, txs int) *scheduled {
	t.Helper()
	f := rig.Generate(t, rig.Size{Blocks: 0, Txs: txs})
	c := newCluster(t, name, f, sharedKafka(t))
	s := &scheduled{cluster: c, path: filepath.Join(c.Dir, "store")}
	rig.MakeDir(t, s.path)
	s.store = rig.Must(snapshot.OpenDir(s.path))(t)
	s.master = c.StartMaster(t, "--kafka.retention", "10m")
	if err := c.kafka.SetTopic(t.Context(), changelog.TopicName(name), "segment.ms", "500"); err != nil {
		t.Fatal(err)
	}
	s.log = c.OpenLog(t)
	s.feeder = newFeeder(f, 1)
	s.feeder.pause = 2 * feedPause
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	t.Cleanup(cancel)
	go s.feeder.run(ctx, s.master)
	rig.Until(t, time.Minute, func(context.Context) error {
		if s.feeder.heads.Load() < 3 {
			return errors.New("no heads yet")
		}
		return nil
	})
	rig.Succeed(t, time.Minute, c.SnapshotCommand(t, s.path, "create", "--datadir", c.Master))
	rig.Succeed(t, time.Minute, c.SnapshotCommand(t, s.path, "verify"))
	return s
}

// scheduler starts one with a replica of its own. Once that has made a snapshot, frames begin to go.
func (s *scheduled) scheduler(t *testing.T, flags ...string) *rig.Node {
	t.Helper()
	n := &rig.Node{AdminPort: rig.Port(t)}
	flags = append([]string{
		"--datadir", filepath.Join(s.Dir, "scheduler"), "--interval", "2s", "--check-every", "300ms", "--retry.min", "500ms", "--retry.max", "1s",
		"--keep", "2", "--orphan-age", "1s", "--admin.addr", rig.Localhost(n.AdminPort),
	}, flags...)
	began := time.Now()
	n.Process = rig.Start(t, s.SnapshotCommand(t, s.path, "schedule", flags...))
	rig.Until(t, time.Minute, func(context.Context) error {
		if good, _ := s.runs(t, began); good == 0 {
			return errors.New("no snapshot yet")
		}
		return nil
	})
	s.keepFramesFor(t, retained)
	return n
}

func (s *scheduled) keepFramesFor(t *testing.T, d time.Duration) {
	t.Helper()
	if err := s.log.SetRetention(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func (s *scheduled) state(t *testing.T) schedule.State {
	t.Helper()
	return rig.Must(schedule.ReadState(t.Context(), s.store, s.Name))(t)
}

// damage takes the objects away from the store, so that no snapshot can be made; mend puts them back.
func (s *scheduled) damage(t *testing.T) (mend func()) {
	t.Helper()
	objects := filepath.Join(s.path, s.Name, "objects")
	away := objects + ".away"
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	fail(os.Rename(objects, away))
	fail(os.WriteFile(objects, []byte("a file where objects should be"), 0o600))
	return func() {
		fail(os.Remove(objects))
		fail(os.Rename(away, objects))
	}
}

// runs is how many snapshots were made usable since the time, and whether the last run failed.
func (s *scheduled) runs(t *testing.T, since time.Time) (good int, failed bool) {
	t.Helper()
	for _, r := range s.state(t).Runs {
		if r.Started.Before(since) {
			continue
		}
		failed = r.Outcome == schedule.Failed
		if r.Outcome == schedule.Succeeded {
			good++
		}
	}
	return good, failed
}

// failOnce makes a snapshot fail.
func (s *scheduled) failOnce(t *testing.T) {
	t.Helper()
	began := time.Now()
	mend := s.damage(t)
	rig.Until(t, time.Minute, func(context.Context) error {
		if _, failed := s.runs(t, began); !failed {
			return errors.New("the fault did not fire: no snapshot has failed")
		}
		return nil
	})
	mend()
}

// boots requires that a new replica can be started, and comes to the topic's end.
func (s *scheduled) boots(t *testing.T, name string) {
	t.Helper()
	datadir := filepath.Join(s.Dir, name)
	rig.Succeed(t, time.Minute, s.ReplicaCommand(t, datadir, rig.Port(t), "--snapshot", s.path, "--until-synced"))
	rig.RemoveTree(t, datadir)
}

// Retention really passes, and snapshots fail: the scheduler keeps a cluster bootable through DROVER_E2E_PERIODS (3; 20 in
// `make soak`) retention periods, in each of which every frame of the one before goes, while every third snapshot is made
// to fail. Without it the same run ends in exit code 3.
func TestSchedulerKeepsAClusterBootableThroughRetentionPeriods(t *testing.T) {
	t.Parallel() // it waits for most of the time
	periods := rig.Number(t, "DROVER_E2E_PERIODS", 3)
	s := newScheduled(t, "periods", 2)
	scheduler := s.scheduler(t)
	made, broken, since := 0, 0, time.Now()
	for period := range periods {
		began, mark := time.Now(), bounds(t, s.log).next
		rig.Until(t, 2*time.Minute, func(context.Context) error {
			if good, _ := s.runs(t, since); good >= 2 {
				s.failOnce(t)
				made, broken, since = made+good, broken+1, time.Now()
			}
			if b := bounds(t, s.log); b.first <= mark {
				return fmt.Errorf("retention has not passed: the topic begins at %d, at the period's start it ended at %d", b.first, mark)
			}
			return nil
		})
		t.Logf("period %d, %s: %d snapshots made, %d failed so far", period+1, time.Since(began).Round(time.Second), made, broken)
		s.boots(t, fmt.Sprint("replica", period))
	}
	if broken < periods/2 {
		t.Errorf("the fault fired %d times in %d periods", broken, periods)
	}
	if !scheduler.Running() {
		t.Fatalf("the scheduler has ended:\n%s", scheduler.Tail(20))
	}
	scheduler.End(t)

	mark := bounds(t, s.log).next
	rig.Until(t, time.Minute, func(context.Context) error {
		if b := bounds(t, s.log); b.first <= mark {
			return fmt.Errorf("offset %d is still there", mark)
		}
		return nil
	})
	rig.RequireExit(t, 3, s.ReplicaCommand(t, filepath.Join(s.Dir, "late"), rig.Port(t), "--snapshot", s.path, "--until-synced"), "no longer retained")

	// It can be mended: a scheduler on a live node needs no snapshot to begin with, nor has it to wait until one is due.
	s.keepFramesFor(t, 10*time.Minute) // or what follows would have to be quicker than retained
	s.once(t, "--live", "--datadir", s.Master)
	s.boots(t, "again")
	s.end(t)
}

// once runs the one-shot.
func (s *scheduled) once(t *testing.T, flags ...string) {
	t.Helper()
	rig.Succeed(t, time.Minute, s.SnapshotCommand(t, s.path, "schedule", append(flags, "--once")...))
}

// end stops feeder and master.
func (s *scheduled) end(t *testing.T) {
	t.Helper()
	s.stop()
	<-s.feeder.done
	if s.feeder.err != nil {
		t.Fatal(s.feeder.err)
	}
	s.master.End(t)
}

// inbox is a webhook that keeps what it gets.
type inbox struct {
	mu       sync.Mutex
	messages []alert.Message
}

func (i *inbox) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var m alert.Message
	if json.NewDecoder(r.Body).Decode(&m) != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.messages = append(i.messages, m)
}

func (i *inbox) has(name, severity, status string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.messages {
		if m.Name == name && m.Status == status && (severity == "" || m.Severity == severity) {
			return true
		}
	}
	return false
}

// Fault 15: snapshots fail for longer than the retention. People are told long before, prune refuses, and the topic's retention
// is raised so that the newest usable snapshot stays one; when snapshots can be made again, it is put back.
func TestRetentionIsExtendedWhileSnapshotsFailOnRealKafka(t *testing.T) {
	t.Parallel() // it waits for most of the time
	s := newScheduled(t, "extended", 3)
	receiver := new(inbox)
	server := httptest.NewServer(receiver)
	defer server.Close()
	scheduler := s.scheduler(t, "--alert", "webhook:"+server.URL, "--extend-retention", "--max-retention", "10m", "--failures-alarm", "2")
	setting := func() time.Duration { return rig.Must(s.log.Retention(t.Context()))(t).Time }
	began := time.Now()
	mend := s.damage(t)
	mark := bounds(t, s.log).next
	rig.Until(t, time.Minute, func(context.Context) error {
		if setting() <= retained {
			return errors.New("the retention is not raised")
		}
		return nil
	})
	for _, a := range []struct{ name, severity string }{
		{schedule.AlertFailed, alert.Warning}, {schedule.AlertFailing, alert.Critical}, {schedule.AlertHeadroom, alert.Warning}, {schedule.AlertExtended, alert.Warning},
	} {
		rig.Until(t, time.Minute, func(context.Context) error {
			if !receiver.has(a.name, a.severity, "firing") {
				return fmt.Errorf("nobody was told of %s (%s)", a.name, a.severity)
			}
			return nil
		})
	}
	rig.RequireExit(t, 1, s.SnapshotCommand(t, s.path, "prune", "--confirm", "--keep", "1", "--margin", "1000000"), "nothing is removed")
	// Longer than the retention was.
	for time.Since(began) < 2*retained {
		s.feederRises(t)
	}
	if b := bounds(t, s.log); b.first > mark {
		t.Fatalf("the topic begins at %d, and what a new replica needs at %d or before is gone", b.first, mark)
	}
	if _, failed := s.runs(t, began); !failed {
		t.Error("the fault did not fire: the last snapshot did not fail")
	}

	mend()
	s.boots(t, "kept")
	rig.Until(t, time.Minute, func(context.Context) error {
		if now := setting(); now != retained {
			return fmt.Errorf("the retention is still %v", now)
		}
		for _, name := range []string{schedule.AlertFailed, schedule.AlertFailing, schedule.AlertHeadroom} {
			if !receiver.has(name, "", "resolved") {
				return fmt.Errorf("%s is not resolved", name)
			}
		}
		return nil
	})
	scheduler.End(t)
	s.end(t)
}

func (s *scheduled) feederRises(t *testing.T) {
	t.Helper()
	from := s.feeder.heads.Load()
	rig.Until(t, time.Minute, func(context.Context) error {
		if s.feeder.heads.Load() == from {
			return errors.New("no new head")
		}
		return nil
	})
}

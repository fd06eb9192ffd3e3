package schedule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/snapshot"
)

// stateFormat is the version of state.json.
//
//	1: the fields of State
const stateFormat = 1

const (
	runsKept   = 50
	stateLimit = 1 << 20 // bytes
	errorLimit = 600     // bytes of a run's error
)

// State is CLUSTER/schedule/state.json: what schedulers remember of a cluster.
type State struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	Since   time.Time `json:"since"` // when a scheduler first looked after the cluster
	// Runs are the last ones, the oldest first, at most 50. Running is the one under way, or that was when its process died.
	Runs     []Run `json:"runs"`
	Running  *Run  `json:"running,omitempty"`
	Failures int   `json:"failures"` // runs that failed since the last good one
	// Extension is there while the topic's retention is raised.
	Extension *Extension `json:"extension,omitempty"`
	Alerts    []Firing   `json:"alerts,omitempty"`
}

// Outcome is how a run ended.
type Outcome string

// Outcomes of a run.
const (
	Succeeded Outcome = "ok"
	Failed    Outcome = "failed"
	// Stopped was told to, or was kept from starting by somebody else's create: no failure.
	Stopped Outcome = "stopped"
)

// Run is one attempt at a snapshot.
type Run struct {
	Started  time.Time `json:"started"`
	Node     string    `json:"node"`
	Outcome  Outcome   `json:"outcome,omitempty"`
	Step     string    `json:"step,omitempty"` // prepare, create, verify, prune: the last one begun
	Error    string    `json:"error,omitempty"`
	Snapshot string    `json:"snapshot,omitempty"`
	Moved    int64     `json:"moved,omitempty"` // bytes
	// Seconds is the whole of it; the others are parts.
	Seconds float64 `json:"seconds"`
	Prepare float64 `json:"prepareSeconds,omitempty"`
	Create  float64 `json:"createSeconds,omitempty"`
	Verify  float64 `json:"verifySeconds,omitempty"`
	Prune   float64 `json:"pruneSeconds,omitempty"`
}

// Duration is how long the run took.
func (r Run) Duration() time.Duration { return time.Duration(r.Seconds * float64(time.Second)) }

// Extension is what the topic's retention was, and became.
type Extension struct {
	Original Duration   `json:"original"` // to be put back
	Steps    []Duration `json:"steps"`    // what it was raised to, one after the other; the last one may not be set yet
	Since    time.Time  `json:"since"`
	Newest   string     `json:"newest"` // the snapshot that it keeps bootable
}

// Duration is a time.Duration that is "168h0m0s" in JSON.
type Duration time.Duration

func (d Duration) d() time.Duration { return time.Duration(d) }

// String returns it as Go writes durations.
func (d Duration) String() string { return d.d().String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Firing is an alert that holds.
type Firing struct {
	Alert alert.Alert `json:"alert"` // as it was sent last; its At is since when it holds
	Sent  time.Time   `json:"sent"`  // zero: not yet
}

func stateKey(cluster string) string { return cluster + "/schedule/state.json" }

// ReadState returns what schedulers noted about a cluster; the zero State when none has run yet. Errors: ErrState, and the
// store's.
func ReadState(ctx context.Context, store snapshot.Store, cluster string) (State, error) {
	s, _, err := readState(ctx, store, cluster)
	return s, err
}

// readState returns the version, too; "" when there is no state yet.
func readState(ctx context.Context, store snapshot.Store, cluster string) (s State, version string, err error) {
	if err := changelog.CheckCluster(cluster); err != nil {
		return s, "", fmt.Errorf("%w: --cluster: %w", errUsage, err)
	}
	key := stateKey(cluster)
	for o, err := range store.List(ctx, key) {
		if err != nil {
			return s, "", err
		}
		if o.Key == key {
			version = o.Version
		}
	}
	if version == "" {
		return s, "", nil
	}
	r, err := store.Get(ctx, key, 0, stateLimit+1)
	if err != nil {
		return s, "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return s, "", fmt.Errorf("store %s: %s: %w", store, key, err)
	}
	if err := decodeState(b, cluster, &s); err != nil {
		return State{}, "", fmt.Errorf("%w: %s in store %s: %w: when no scheduler runs it may be deleted", ErrState, key, store, err)
	}
	return s, version, nil
}

func decodeState(b []byte, cluster string, s *State) error {
	if len(b) > stateLimit {
		return errors.New("it is far too long")
	}
	var probe struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &probe); err != nil {
		return err
	}
	if probe.Format != stateFormat {
		return fmt.Errorf("format %d, this release reads %d", probe.Format, stateFormat)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return err
	}
	if s.Cluster != cluster {
		return fmt.Errorf("it is of cluster %q", s.Cluster)
	}
	if e := s.Extension; e != nil && (e.Original <= 0 || len(e.Steps) == 0 || slices.Min(e.Steps) <= 0) {
		return errors.New("the extension's figures")
	}
	return nil
}

// notes is the State of a Scheduler, in step with the store as far as that can be had.
type notes struct {
	store   snapshot.Store
	cluster string

	mu      sync.Mutex
	now     State
	pending []func(*State) // changes that the store does not have yet
}

// get returns the State as it is known. Its slices must not be changed.
func (n *notes) get() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// change applies f to what the store holds, whoever wrote it last. When the store cannot be written, f holds in memory, and
// is applied to the store's at the next change: f has to bear that, and to be called more than once.
func (n *notes) change(ctx context.Context, f func(*State)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, f)
	err := n.flush(ctx)
	if err != nil {
		f(&n.now)
	}
	return err
}

// load takes over what the store holds, and writes what is pending.
func (n *notes) load(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.pending) > 0 {
		return n.flush(ctx)
	}
	s, _, err := readState(ctx, n.store, n.cluster)
	if err == nil {
		n.now = s
	}
	return err
}

// unwritten tells whether changes wait for the store.
func (n *notes) unwritten() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.pending) > 0
}

func (n *notes) flush(ctx context.Context) error {
	for try := 0; ; try++ {
		s, version, err := readState(ctx, n.store, n.cluster)
		if err != nil {
			return err
		}
		for _, f := range n.pending {
			f(&s)
		}
		s.Format, s.Cluster = stateFormat, n.cluster
		if len(s.Runs) > runsKept {
			s.Runs = slices.Clone(s.Runs[len(s.Runs)-runsKept:])
		}
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		if b = append(b, '\n'); version == "" {
			_, err = n.store.Create(ctx, stateKey(n.cluster), b)
		} else {
			_, err = n.store.Replace(ctx, stateKey(n.cluster), b, version)
		}
		if taken := errors.Is(err, snapshot.ErrExists) || errors.Is(err, snapshot.ErrConflict); taken && try < 20 {
			continue
		}
		if err == nil {
			n.now, n.pending = s, nil
		}
		return err
	}
}

// ended closes a run.
func (s *State) ended(r Run) {
	if len(r.Error) > errorLimit {
		r.Error = r.Error[:errorLimit] + "…"
	}
	switch r.Outcome {
	case Succeeded:
		s.Failures = 0
	case Failed:
		s.Failures++
	}
	s.Runs = append(slices.Clone(s.Runs), r)
	s.Running = nil
}

// abandoned closes a run whose process died: it counts as failed, or nobody would notice that all of them die.
func (s *State) abandoned(now time.Time) {
	if r := s.Running; r != nil {
		over := *r
		over.Outcome, over.Error = Failed, "the run was cut off during "+or(over.Step, "it")+": its scheduler was killed, or lost its lease"
		over.Seconds = max(0, now.Sub(over.Started).Seconds())
		s.ended(over)
	}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

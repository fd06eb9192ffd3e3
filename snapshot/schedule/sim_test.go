package schedule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/snapshot"
)

const testCluster = "test"

// memStore is a snapshot.Store in memory, so that time can be testing/synctest's.
type memStore struct {
	mu      sync.Mutex
	objects map[string]memObject
	count   int
	broken  error // of writes
}

type memObject struct {
	body    []byte
	version string
}

func newMemStore() *memStore { return &memStore{objects: make(map[string]memObject)} }

func (s *memStore) String() string { return "memory" }

func (s *memStore) write(key string, body []byte) (string, error) {
	if s.broken != nil {
		return "", s.broken
	}
	s.count++
	s.objects[key] = memObject{bytes.Clone(body), fmt.Sprint(s.count)}
	return s.objects[key].version, nil
}

func (s *memStore) Put(_ context.Context, key string, r io.Reader, _ int64) error {
	body, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		_, err = s.write(key, body)
	}
	return err
}

func (s *memStore) Create(_ context.Context, key string, body []byte) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return "", snapshot.ErrExists
	}
	return s.write(key, body)
}

func (s *memStore) Replace(_ context.Context, key string, body []byte, version string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[key].version != version {
		return "", snapshot.ErrConflict
	}
	return s.write(key, body)
}

func (s *memStore) Get(_ context.Context, key string, _, _ int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return nil, snapshot.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(o.body)), nil
}

func (s *memStore) List(_ context.Context, prefix string) iter.Seq2[snapshot.Object, error] {
	return func(yield func(snapshot.Object, error) bool) {
		s.mu.Lock()
		objects := maps.Clone(s.objects)
		s.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if strings.HasPrefix(key, prefix) && !yield(snapshot.Object{Key: key, Version: objects[key].version}, nil) {
				return
			}
		}
	}
}

func (s *memStore) Delete(_ context.Context, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.objects, key)
	}
	return nil
}

func (s *memStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

// simTopic has a frame each second, and drops each as soon as Kafka may.
type simTopic struct {
	mu        sync.Mutex
	begun     time.Time
	first     int64
	retention changelog.Retention
	sets      []time.Duration
	setErr    error
	down      error
}

const beat = time.Second

func newSimTopic(retention time.Duration) *simTopic {
	return &simTopic{begun: time.Now(), retention: changelog.Retention{Time: retention}}
}

func (t *simTopic) next() int64 { return int64(time.Since(t.begun) / beat) }

func (t *simTopic) drop() {
	if t.retention.Time > 0 {
		t.first = max(t.first, int64((time.Since(t.begun)-t.retention.Time)/beat))
	}
}

func (t *simTopic) Bounds(context.Context) (int64, int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	return t.first, t.next(), t.down
}

func (t *simTopic) Join(_ context.Context, at changelog.Position) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	if at.Timeline != 1 {
		return 0, fmt.Errorf("%w: test", changelog.ErrTimelineMismatch)
	}
	if at.Offset+1 < t.first {
		return 0, &changelog.NotRetainedError{Position: at, FirstOffset: t.first}
	}
	return at.Offset + 1, t.down
}

func (t *simTopic) TimeAt(_ context.Context, offset int64) (time.Time, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	switch {
	case offset < t.first:
		return time.Time{}, &changelog.NotRetainedError{FirstOffset: t.first}
	case offset >= t.next():
		return time.Time{}, t.down
	}
	return t.begun.Add(time.Duration(offset) * beat), t.down
}

func (t *simTopic) Retention(context.Context) (changelog.Retention, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retention, t.down
}

func (t *simTopic) SetRetention(_ context.Context, d time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
	if t.setErr == nil {
		t.retention.Time = d
		t.sets = append(t.sets, d)
	}
	return t.setErr
}

func (t *simTopic) set(f func(*simTopic)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t)
}

// simBackend keeps points in memory. What is called is what the next call of a step does.
type simBackend struct {
	topic *simTopic
	mu    sync.Mutex
	list  []Point

	creates, verifies, prunes int
	createTakes, verifyTakes  time.Duration
	createErr, verifyErr      func(n int) error
	listErr                   error
	atOnce                    int // creates at the same time
}

func (b *simBackend) String() string { return "sim" }

func (b *simBackend) List(context.Context) ([]Point, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list), b.listErr
}

func (b *simBackend) Create(ctx context.Context, _ string) (Made, error) {
	b.mu.Lock()
	b.creates++
	n, takes, plan := b.creates, b.createTakes, b.createErr
	b.atOnce++
	if b.atOnce > 1 {
		panic("two creates at the same time")
	}
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.atOnce--; b.mu.Unlock() }()
	_, next, _ := b.topic.Bounds(ctx)
	p := Point{
		ID: fmt.Sprintf("snap-%03d", n), Taken: time.Now(),
		Position: changelog.Position{Cluster: testCluster, Timeline: 1, Sequence: uint64(next), Offset: next - 1},
	}
	if !pause(ctx, takes) {
		return Made{}, ctx.Err()
	}
	if plan != nil {
		if err := plan(n); err != nil {
			return Made{}, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, p)
	return Made{Point: p}, nil
}

func (b *simBackend) Verify(ctx context.Context, id string) error {
	b.mu.Lock()
	b.verifies++
	n, takes, plan := b.verifies, b.verifyTakes, b.verifyErr
	b.mu.Unlock()
	if !pause(ctx, takes) {
		return ctx.Err()
	}
	if plan != nil {
		if err := plan(n); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.list {
		if b.list[i].ID == id {
			b.list[i].Usable = true
		}
	}
	return nil
}

// Prune keeps the three newest.
func (b *simBackend) Prune(context.Context, int64) (Pruned, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prunes++
	n := max(0, len(b.list)-3)
	b.list = slices.Clone(b.list[n:])
	return Pruned{Snapshots: n}, nil
}

func (b *simBackend) set(f func(*simBackend)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
}

func (b *simBackend) counts() (creates, verifies, prunes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.creates, b.verifies, b.prunes
}

// bell is an Alerter that remembers.
type bell struct {
	mu    sync.Mutex
	rings []ring
	err   error
}

type ring struct {
	alert.Alert
	over bool
	at   time.Time // when it was sent
}

func (b *bell) add(a alert.Alert, over bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rings = append(b.rings, ring{a, over, time.Now()})
	return b.err
}

func (b *bell) Fire(_ context.Context, a alert.Alert) error    { return b.add(a, false) }
func (b *bell) Resolve(_ context.Context, a alert.Alert) error { return b.add(a, true) }

func (b *bell) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// of returns what was sent under a name as words: "warning", "critical", "over".
func (b *bell) of(name string) (words []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rings {
		switch {
		case r.Name != name:
		case r.over:
			words = append(words, "over")
		default:
			words = append(words, r.Severity)
		}
	}
	return words
}

// first returns when an alert first rang with a severity; zero: never.
func (b *bell) first(name, severity string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rings {
		if r.Name == name && r.Severity == severity && !r.over {
			return r.at
		}
	}
	return time.Time{}
}

// world is a cluster under a scheduler.
type world struct {
	t       *testing.T
	topic   *simTopic
	backend *simBackend
	notes   *memStore
	bell    *bell
	opts    Options
}

const hour = time.Hour

// newWorld has a retention of 24 hours, and a snapshot every 4.
func newWorld(t *testing.T) *world {
	topic := newSimTopic(24 * hour)
	w := &world{t: t, topic: topic, backend: &simBackend{topic: topic, createTakes: 10 * time.Minute, verifyTakes: 5 * time.Minute}, notes: newMemStore(), bell: new(bell)}
	w.opts = Options{
		Cluster: testCluster, Topic: topic, Backend: w.backend, Source: Live("datadir"), Notes: w.notes, Interval: 4 * hour, Alerter: w.bell, Node: "here",
	}
	return w
}

func (w *world) scheduler() *Scheduler {
	w.t.Helper()
	s, err := New(w.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// run runs a scheduler until stop is called.
func (w *world) run() (s *Scheduler, stop func()) {
	w.t.Helper()
	s = w.scheduler()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
}

// lost is why no replica can be started now; nil: it can.
func (w *world) lost() error {
	points, _ := w.backend.List(w.t.Context())
	for _, p := range slices.Backward(points) {
		if p.Usable {
			_, err := w.topic.Join(w.t.Context(), p.Position)
			return err
		}
	}
	return errors.New("none is usable")
}

func (w *world) state() State {
	w.t.Helper()
	s, err := ReadState(w.t.Context(), w.notes, testCluster)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) want(what string, got, want any) {
	w.t.Helper()
	if g, e := fmt.Sprint(got), fmt.Sprint(want); g != e {
		w.t.Errorf("%s: %s, want %s", what, g, e)
	}
}

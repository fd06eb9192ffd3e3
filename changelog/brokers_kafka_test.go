package changelog_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// TestOnThreeBrokers loses leaders in mid-stream, and reads from the nearest replica.
func TestOnThreeBrokers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	k, err := localkafka.New(localkafka.Options{Brokers: 3, Properties: map[string]string{
		"replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	for _, id := range k.IDs() {
		f, err := os.OpenFile(filepath.Join(k.Dir(), fmt.Sprintf("broker-%d", id), "server.properties"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(f, "broker.rack=rack-%d\n", id); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := k.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Run("nearest replica", func(t *testing.T) { testNearestReplica(t, k) })
	t.Run("leaders die and hang", func(t *testing.T) { testLeadersInMidStream(t, k) })
}

// patient is the deadline of a test with broker faults.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func openOn(t testing.TB, o changelog.Options, k *localkafka.Cluster) *changelog.Log {
	t.Helper()
	o.Brokers = k.Bootstrap(localkafka.Plaintext)
	l, err := changelog.Open(patient(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// byteCounter counts what is read from each address.
type byteCounter struct {
	mu   sync.Mutex
	read map[string]*atomic.Int64
}

func (c *byteCounter) of(addr string) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read == nil {
		c.read = make(map[string]*atomic.Int64)
	}
	if c.read[addr] == nil {
		c.read[addr] = new(atomic.Int64)
	}
	return c.read[addr]
}

func (c *byteCounter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return countedConn{conn, c.of(addr)}, err
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// testNearestReplica: the bytes come from the broker in the reader's rack; when it
// dies, from another, and nothing is missing.
func testNearestReplica(t *testing.T, k *localkafka.Cluster) {
	ctx := patient(t)
	const cluster = "racks"
	l := openOn(t, changelog.Options{Cluster: cluster}, k)
	if _, findings, err := l.Ensure(ctx, changelog.TopicSpec{}); err != nil || len(findings) != 0 {
		t.Fatal(findings, err)
	}
	frames, last := stream(1, 1, 100, 20_000, 0)
	publish(t, l, frames...)
	if err := k.WaitInSync(ctx, l.Topic(), 0, 3); err != nil {
		t.Fatal(err)
	}
	leader, _, err := k.Leader(ctx, l.Topic(), 0)
	if err != nil {
		t.Fatal(err)
	}
	near := leader%3 + 1
	var bytes byteCounter
	reading := openOn(t, changelog.Options{Cluster: cluster, Rack: fmt.Sprintf("rack-%d", near), Dial: bytes.dial}, k)
	r := reading.NewReader(0)
	defer r.Close()
	s := changelog.NewSequencer(changelog.Position{Cluster: cluster, Timeline: 1, Offset: -1})
	followTo(ctx, t, r, s, last)
	fromNear, fromLeader := bytes.of(k.Addr(near, localkafka.Plaintext)).Load(), bytes.of(k.Addr(leader, localkafka.Plaintext)).Load()
	if fromNear < 1_000_000 || fromLeader > 100_000 {
		t.Errorf("read %d bytes from the broker in the rack, %d from the leader", fromNear, fromLeader)
	}

	// What is published later arrives too, also without the broker in the rack.
	if err := k.Kill(near); err != nil {
		t.Fatal(err)
	}
	frames, last = stream(1, last+1, 100, 20_000, 0)
	publish(t, l, frames...)
	followTo(ctx, t, r, s, last)
	if now := bytes.of(k.Addr(leader, localkafka.Plaintext)).Load(); now < 1_000_000 {
		t.Errorf("read %d bytes from the leader after the broker in the rack died", now)
	}
	if err := k.Restart(ctx, near); err != nil {
		t.Fatal(err)
	}
}

func followTo(ctx context.Context, t testing.TB, r *changelog.Reader, s *changelog.Sequencer, last uint64) {
	t.Helper()
	for s.Position().Sequence < last {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("at %s: %v", s.Position(), err)
		}
		if _, err := s.Next(e); err != nil {
			t.Fatal(err)
		}
	}
}

// flow is a publisher and a reader at work on one topic.
type flow struct {
	published, sequence atomic.Uint64 // last acknowledged, last delivered
	failed              atomic.Pointer[error]
	stop                chan struct{}
	publishing          chan error
	delivered           chan uint64
}

// startFlow publishes and reads until ctx ends.
func startFlow(ctx context.Context, publisher, reader *changelog.Log, cluster string) *flow {
	f := &flow{stop: make(chan struct{}), publishing: make(chan error, 1), delivered: make(chan uint64, 1)}
	go func() { f.publishing <- publishUntil(ctx, publisher, f.stop, &f.published) }()
	go func() {
		n, err := countInOrder(ctx, reader, cluster, &f.sequence)
		if err != nil && ctx.Err() == nil {
			f.failed.Store(&err)
		}
		f.delivered <- n
	}()
	return f
}

// reaches waits until the sequence is delivered.
func (f *flow) reaches(t testing.TB, want uint64, what string) {
	t.Helper()
	until(t, func() error {
		if err := f.failed.Load(); err != nil {
			t.Fatal(*err)
		}
		if at := f.sequence.Load(); at < want {
			return fmt.Errorf("%s: %d delivered, waiting for %d", what, at, want)
		}
		return nil
	})
}

// goesOn waits until batches that were published later are delivered.
func (f *flow) goesOn(t testing.TB, what string) {
	t.Helper()
	began := time.Now()
	f.reaches(t, f.published.Load()+200, what)
	t.Logf("%s: flowed again after %s", what, time.Since(began).Round(10*time.Millisecond))
}

// moved waits until another broker than from leads, and returns it.
func moved(ctx context.Context, t testing.TB, k *localkafka.Cluster, topic string, from int) (now int) {
	t.Helper()
	until(t, func() error {
		leader, _, err := k.Leader(ctx, topic, 0)
		if err == nil && (leader == from || leader <= 0) {
			err = fmt.Errorf("broker %d still leads", leader)
		}
		now = leader
		return err
	})
	return now
}

// testLeadersInMidStream is fault 5: the leader is killed, and then its successor
// paused, while frames flow. Nothing is lost, twice or out of order.
func testLeadersInMidStream(t *testing.T, k *localkafka.Cluster) {
	ctx := patient(t)
	const cluster = "leaders"
	l := openOn(t, changelog.Options{Cluster: cluster}, k)
	if _, findings, err := l.Ensure(ctx, changelog.TopicSpec{}); err != nil || len(findings) != 0 {
		t.Fatal(findings, err)
	}
	flowing, end := context.WithCancel(ctx)
	defer end()
	f := startFlow(flowing, l, openOn(t, changelog.Options{Cluster: cluster}, k), cluster)
	f.goesOn(t, "before")

	first, _, err := k.Leader(ctx, l.Topic(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Kill(first); err != nil {
		t.Fatal(err)
	}
	f.goesOn(t, "leader killed")
	second := moved(ctx, t, k, l.Topic(), first)
	if err := k.Restart(ctx, first); err != nil {
		t.Fatal(err)
	}
	if err := k.WaitInSync(ctx, l.Topic(), 0, 3); err != nil {
		t.Fatal(err)
	}
	if err := k.Pause(second); err != nil {
		t.Fatal(err)
	}
	f.goesOn(t, "leader paused")
	moved(ctx, t, k, l.Topic(), second)
	if err := k.Resume(second); err != nil {
		t.Fatal(err)
	}
	f.goesOn(t, "leader resumed")

	close(f.stop)
	if err := <-f.publishing; err != nil {
		t.Fatal(err)
	}
	last := f.published.Load()
	f.reaches(t, last, "the end")
	end()
	if n := <-f.delivered; n != last {
		t.Errorf("%d batches delivered, %d published", n, last)
	}
	t.Logf("%d batches", last)
}

// publishUntil publishes batches of one sequence each until stop is closed;
// published is the last acknowledged.
func publishUntil(ctx context.Context, l *changelog.Log, stop <-chan struct{}, published *atomic.Uint64) error {
	p := l.NewPublisher(changelog.PublisherOptions{})
	for next := uint64(1); ; {
		var frames []changelog.Frame
		for range 10 {
			frames = append(frames, changelog.SplitBatch(1, next, 1, record(next, 1, 1000), 0, time.Now())...)
			next++
		}
		if _, err := p.Publish(ctx, frames); err != nil {
			return err
		}
		published.Store(next - 1)
		select {
		case <-stop:
			return nil
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// countInOrder counts the batches that a Sequencer delivers, each of which must be
// the one after the last.
func countInOrder(ctx context.Context, l *changelog.Log, cluster string, sequence *atomic.Uint64) (n uint64, err error) {
	r := l.NewReader(0)
	defer r.Close()
	s := changelog.NewSequencer(changelog.Position{Cluster: cluster, Timeline: 1, Offset: -1})
	for {
		e, err := r.Next(ctx)
		if err != nil {
			return n, err
		}
		ev, err := s.Next(e)
		if err != nil {
			return n, err
		}
		if ev.Kind != changelog.EventBatch {
			continue
		}
		if n++; ev.First != n || binary.LittleEndian.Uint64(ev.Record) != n {
			return n, fmt.Errorf("batch %d came as the %dth", ev.First, n)
		}
		sequence.Store(n)
	}
}

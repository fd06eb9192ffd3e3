package localkafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

const testTopic = "drover.test.log"

// deadline ends a test that hangs; nothing asserts how long anything takes.
func deadline(t *testing.T) context.Context {
	if testing.Short() {
		t.Skip("starts a real Apache Kafka")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, transport *kafka.Transport, addrs []string) *kafka.Client {
	transport.MetadataTTL = 200 * time.Millisecond
	transport.DialTimeout = 2 * time.Second
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(addrs...), Timeout: 5 * time.Second, Transport: transport}
}

func plaintext(t *testing.T, c *Cluster) *kafka.Client {
	return client(t, &kafka.Transport{}, c.Bootstrap(Plaintext))
}

func createTopic(t *testing.T, ctx context.Context, cl *kafka.Client, replicas int, config map[string]string) {
	t.Helper()
	spec := kafka.TopicConfig{Topic: testTopic, NumPartitions: 1, ReplicationFactor: replicas}
	for name, value := range config {
		spec.ConfigEntries = append(spec.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	resp, err := cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{spec}})
	if err == nil {
		err = resp.Errors[testTopic]
	}
	if err != nil {
		t.Fatalf("create topic: %v", err)
	}
}

func produce(ctx context.Context, cl *kafka.Client, value string) (int64, error) {
	resp, err := cl.Produce(ctx, &kafka.ProduceRequest{
		Topic: testTopic, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(value))}),
	})
	if err != nil {
		return 0, err
	}
	return resp.BaseOffset, resp.Error
}

// produceUntil repeats a produce request, as a publisher does, and fails the test only at its deadline. The record may
// stand in the log more than once.
func produceUntil(t *testing.T, ctx context.Context, cl *kafka.Client, value string) (offset int64, failures int) {
	t.Helper()
	err := poll(ctx, func() error {
		var err error
		if offset, err = produce(ctx, cl, value); err != nil {
			failures++
		}
		return err
	})
	if err != nil {
		t.Fatalf("produce %q: %v", value, err)
	}
	return offset, failures
}

// readAll returns every value in the topic by offset, from the leader.
func readAll(t *testing.T, ctx context.Context, c *Cluster, listener Listener) map[int64]string {
	t.Helper()
	values := make(map[int64]string)
	err := poll(ctx, func() error {
		leader, _, err := c.Leader(ctx, testTopic, 0)
		if err != nil {
			return err
		}
		conn, err := kafka.DialLeader(ctx, "tcp", c.Addr(leader, listener), testTopic, 0)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		first, next, err := conn.ReadOffsets()
		if err != nil {
			return err
		}
		if _, err := conn.Seek(first, kafka.SeekAbsolute); err != nil {
			return err
		}
		clear(values)
		for offset := first; offset < next; {
			batch := conn.ReadBatch(1, 4<<20)
			for m, err := batch.ReadMessage(); err == nil; m, err = batch.ReadMessage() {
				values[m.Offset] = string(m.Value)
				offset = m.Offset + 1
			}
			if err := batch.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the topic: %v", err)
	}
	return values
}

func bounds(ctx context.Context, c *Cluster, id int) (first, next int64, err error) {
	conn, err := kafka.DialLeader(ctx, "tcp", c.Addr(id, Plaintext), testTopic, 0)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	return conn.ReadOffsets()
}

func mustHold(t *testing.T, have map[int64]string, acknowledged map[int64]string) {
	t.Helper()
	for offset, value := range acknowledged {
		if have[offset] != value {
			t.Errorf("offset %d holds %q; %q was acknowledged there", offset, have[offset], value)
		}
	}
}

// residentMB is the resident memory of a process, 0 where there is no /proc.
func residentMB(pid int) int {
	var pages, resident int
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err == nil {
		fmt.Sscan(string(text), &pages, &resident)
	}
	return resident * os.Getpagesize() >> 20
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// stream writes numbers in order, each until it is acknowledged, as Drover's publisher writes frames.
type stream struct {
	mu       sync.Mutex
	held     map[int64]string // what was acknowledged, by offset
	failures int
}

func (s *stream) run(ctx context.Context, cl *kafka.Client) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		value := fmt.Sprint(i)
		_ = poll(ctx, func() error {
			offset, err := produce(ctx, cl, value)
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.failures++
				return err
			}
			s.held[offset] = value
			return nil
		})
		<-tick.C
	}
}

func (s *stream) count() (acknowledged, failures int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held), s.failures
}

// goesOn returns when ten more records were acknowledged.
func (s *stream) goesOn(t *testing.T, ctx context.Context) {
	t.Helper()
	before, failed := s.count()
	begin := time.Now()
	err := poll(ctx, func() error {
		if now, _ := s.count(); now < before+10 {
			return fmt.Errorf("%d records were acknowledged, then %d", before, now)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, failures := s.count()
	t.Logf("  ten more records after %v, with %d failed attempts", time.Since(begin).Round(time.Millisecond), failures-failed)
}

// check wants every acknowledged record at its offset, and every number in order; a repeated one may follow a failure.
func (s *stream) check(t *testing.T, have map[int64]string) {
	t.Helper()
	mustHold(t, have, s.held)
	next := 0
	for _, offset := range slices.Sorted(maps.Keys(have)) {
		n, err := strconv.Atoi(have[offset])
		if err != nil || n > next {
			t.Fatalf("offset %d holds %q, want at most %d", offset, have[offset], next)
		}
		next = max(next, n+1)
	}
	t.Logf("%d acknowledged, %d failed attempts, %d records in the topic", len(s.held), s.failures, len(have))
	if s.failures == 0 {
		t.Error("no attempt failed: the faults never reached the writer")
	}
}

func TestNothingAcknowledgedIsLostWhenLeadersAreKilledPausedAndMoved(t *testing.T) {
	ctx := deadline(t)
	begin := time.Now()
	took := func() time.Duration { return time.Since(begin).Round(time.Millisecond) }
	c := ForTest(t, Options{Brokers: 3})
	t.Logf("three brokers ready after %v", took())
	for _, id := range c.IDs() {
		t.Logf("  broker %d: %d MB resident", id, residentMB(c.PID(id)))
	}
	cl := plaintext(t, c)
	createTopic(t, ctx, cl, 3, map[string]string{"min.insync.replicas": "2"})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lead := func() int {
		t.Helper()
		id, _, err := c.Leader(ctx, testTopic, 0)
		must(err)
		return id
	}
	whole := func() {
		t.Helper()
		must(c.WaitInSync(ctx, testTopic, 0, 3))
	}
	s := stream{held: make(map[int64]string)}
	writing, stopWriting := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { s.run(writing, cl) })
	defer done.Wait()
	defer stopWriting()
	s.goesOn(t, ctx)

	killed, pid := lead(), c.PID(lead())
	t.Logf("leader %d is killed", killed)
	must(c.Kill(killed))
	if !gone(pid) || c.Running(killed) {
		t.Fatalf("broker %d, process %d, is still there after Kill", killed, pid)
	}
	s.goesOn(t, ctx)
	if lead() == killed {
		t.Fatalf("broker %d leads and is dead", killed)
	}
	begin = time.Now()
	must(c.Restart(ctx, killed))
	t.Logf("  ready again after %v", took())
	whole()

	paused := lead()
	t.Logf("leader %d is paused", paused)
	must(c.Pause(paused))
	s.goesOn(t, ctx)
	if lead() == paused {
		t.Fatalf("broker %d leads and is paused", paused)
	}
	must(c.Resume(paused))
	whole()

	to := c.IDs()[lead()%3]
	begin = time.Now()
	must(c.MoveLeader(ctx, testTopic, 0, to))
	t.Logf("leader moved to %d after %v", to, took())
	if now := lead(); now != to {
		t.Errorf("broker %d leads, want %d", now, to)
	}
	s.goesOn(t, ctx)

	whole()
	hung, to := c.IDs()[to%3], c.IDs()[(to+1)%3]
	must(c.Pause(hung))
	begin = time.Now()
	must(c.MoveLeader(ctx, testTopic, 0, to))
	t.Logf("leader moved to %d after %v while follower %d hangs, which the others still take for alive", to, took(), hung)
	must(c.Resume(hung))
	s.goesOn(t, ctx)

	for _, id := range c.IDs() {
		must(c.Kill(id))
	}
	begin = time.Now()
	for _, id := range c.IDs() {
		must(c.Launch(id))
	}
	must(c.WaitReady(ctx))
	t.Logf("all three were killed, and are ready again after %v", took())
	s.goesOn(t, ctx)

	stopWriting()
	done.Wait()
	s.check(t, readAll(t, ctx, c, Plaintext))
	for _, id := range c.IDs() {
		t.Logf("  broker %d: %d MB resident", id, residentMB(c.PID(id)))
	}
	begin = time.Now()
	must(c.StopAll(ctx))
	t.Logf("stopped in order after %v", took())
}

func TestTooFewReplicasRefuseAWrite(t *testing.T) {
	ctx := deadline(t)
	c := ForTest(t, Options{Brokers: 3})
	cl := plaintext(t, c)
	createTopic(t, ctx, cl, 3, map[string]string{"min.insync.replicas": "3"})
	produceUntil(t, ctx, cl, "all three")
	leader, _, err := c.Leader(ctx, testTopic, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(ctx, c.IDs()[leader%3]); err != nil {
		t.Fatal(err)
	}
	err = poll(ctx, func() error {
		_, err := produce(ctx, cl, "two of three")
		if errors.Is(err, kafka.NotEnoughReplicas) || errors.Is(err, kafka.NotEnoughReplicasAfterAppend) {
			return nil
		}
		return fmt.Errorf("produce says %w, want not enough replicas", err)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDataAndPortsOutliveRestartAndReopening(t *testing.T) {
	ctx := deadline(t)
	opts := Options{Dir: t.TempDir()}
	begin := time.Now()
	c := ForTest(t, opts)
	t.Logf("one broker ready after %v, %d MB resident", time.Since(begin).Round(time.Millisecond), residentMB(c.PID(1)))
	addr := c.Bootstrap(Plaintext)
	cl := plaintext(t, c)
	createTopic(t, ctx, cl, 1, nil)
	acknowledged := make(map[int64]string)
	say := func(value string) {
		offset, _ := produceUntil(t, ctx, cl, value)
		acknowledged[offset] = value
	}
	say("first run")
	begin = time.Now()
	if err := c.Restart(ctx, 1); err != nil {
		t.Fatal(err)
	}
	t.Logf("restarted in order after %v", time.Since(begin).Round(time.Millisecond))
	say("second run")

	if _, err := New(opts); err == nil || !strings.Contains(err.Error(), "another local Kafka uses") {
		t.Errorf("a second cluster in the same directory: %v", err)
	}
	pid := c.PID(1)
	c.Close()
	c.Close()
	if !gone(pid) {
		t.Errorf("process %d outlived Close", pid)
	}
	if err := c.Launch(1); err == nil {
		t.Error("a closed cluster started a broker")
	}

	if _, err := New(Options{Dir: opts.Dir, Brokers: 3}); err == nil {
		t.Error("one broker's directory was taken for three")
	}
	c = ForTest(t, opts)
	if got := c.Bootstrap(Plaintext); !slices.Equal(got, addr) {
		t.Errorf("reopened at %v, was at %v", got, addr)
	}
	say("third run")
	mustHold(t, readAll(t, ctx, c, Plaintext), acknowledged)
}

func TestRetentionDropsSegments(t *testing.T) {
	ctx := deadline(t)
	c := ForTest(t, Options{Properties: FastRetention()})
	cl := plaintext(t, c)
	createTopic(t, ctx, cl, 1, map[string]string{"segment.bytes": "1048576", "retention.bytes": "2097152"})
	var next int64
	for range 20 {
		offset, _ := produceUntil(t, ctx, cl, strings.Repeat("x", 400_000))
		next = offset + 1
	}
	var first int64
	err := poll(ctx, func() (err error) {
		if first, _, err = bounds(ctx, c, 1); err == nil && first == 0 {
			err = errors.New("the first offset is still 0")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if first >= next {
		t.Errorf("first offset %d: retention by size took all %d records", first, next)
	}
	t.Logf("%d records written, the first kept is %d", next, first)
	err = poll(ctx, func() error {
		if _, err := os.Stat(filepath.Join(c.DataDir(1), testTopic+"-0", "00000000000000000000.log")); !os.IsNotExist(err) {
			return fmt.Errorf("the first segment is still on disk (%v)", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestABrokerThatCannotStartSaysWhy(t *testing.T) {
	ctx := deadline(t)
	for name, opts := range map[string]Options{
		"log.retention.hours":           {Properties: map[string]string{"log.retention.hours": "soon"}},          // found when formatting
		"UnsupportedClassVersionNoSuch": {JVMFlags: []string{"-XX:UnsupportedClassVersionNoSuch=1"}},             // found by the JVM
		"no.such.Reporter":              {Properties: map[string]string{"metric.reporters": "no.such.Reporter"}}, // found by the broker
	} {
		c, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.Start(ctx)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("start says %v, want %q in it", err, name)
		}
		if c.Running(1) {
			t.Errorf("%s: broker 1 is running", name)
		}
	}
}

func TestCloseRemovesATemporaryDirectory(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Dir()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := os.Stat(c.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", c.Dir(), err)
	}
}

func TestAPausedBrokerCanBeKilledAndStopped(t *testing.T) {
	ctx := deadline(t)
	c := ForTest(t, Options{})
	if err := c.Pause(1); err != nil {
		t.Fatal(err)
	}
	if err := c.ask(ctx, c.brokers[0], func(conn *kafka.Conn) error { _, err := conn.Brokers(); return err }); err == nil {
		t.Fatal("a paused broker answered")
	}
	if err := c.Kill(1); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(1); !errors.Is(err, ErrNotRunning) {
		t.Errorf("pause of a dead broker: %v, want ErrNotRunning", err)
	}
	if err := c.Restart(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(1); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if c.Running(1) {
		t.Error("the broker outlived Stop")
	}
}

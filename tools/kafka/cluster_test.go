package localkafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		for offset := first; offset < next; offset++ {
			m, err := conn.ReadMessage(2 << 20)
			if err != nil {
				return err
			}
			values[m.Offset] = string(m.Value)
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

func TestNothingAcknowledgedIsLostWhenLeadersAreKilledPausedAndMoved(t *testing.T) {
	ctx := deadline(t)
	begin := time.Now()
	c := ForTest(t, Options{Brokers: 3})
	t.Logf("three brokers ready after %v", time.Since(begin).Round(time.Millisecond))
	for _, id := range c.IDs() {
		t.Logf("broker %d: %d MB resident", id, residentMB(c.PID(id)))
	}
	cl := plaintext(t, c)
	createTopic(t, ctx, cl, 3, map[string]string{"min.insync.replicas": "2"})
	acknowledged := make(map[int64]string)
	say := func(value string) int {
		offset, failures := produceUntil(t, ctx, cl, value)
		acknowledged[offset] = value
		return failures
	}
	lead := func() int {
		t.Helper()
		id, _, err := c.Leader(ctx, testTopic, 0)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	whole := func() {
		t.Helper()
		if err := c.WaitInSync(ctx, testTopic, 0, 3); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		say(fmt.Sprint("before ", i))
	}

	killed := lead()
	pid := c.PID(killed)
	if err := c.Kill(killed); err != nil {
		t.Fatal(err)
	}
	if !gone(pid) || c.Running(killed) {
		t.Fatalf("broker %d, process %d, is still there after Kill", killed, pid)
	}
	begin = time.Now()
	failures := say("after the kill")
	t.Logf("killed leader %d: acknowledged by %d after %v and %d failed attempts", killed, lead(), time.Since(begin).Round(time.Millisecond), failures)
	if now := lead(); now == killed {
		t.Fatalf("broker %d leads and is dead", now)
	}
	begin = time.Now()
	if err := c.Restart(ctx, killed); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed broker ready again after %v", time.Since(begin).Round(time.Millisecond))
	whole()

	paused := lead()
	if err := c.Pause(paused); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	say("while the leader is paused")
	t.Logf("paused leader %d: acknowledged by %d after %v", paused, lead(), time.Since(begin).Round(time.Millisecond))
	if now := lead(); now == paused {
		t.Fatalf("broker %d leads and is paused", now)
	}
	if err := c.Resume(paused); err != nil {
		t.Fatal(err)
	}
	whole()

	to := c.IDs()[lead()%3]
	begin = time.Now()
	if err := c.MoveLeader(ctx, testTopic, 0, to); err != nil {
		t.Fatal(err)
	}
	t.Logf("leader moved after %v", time.Since(begin).Round(time.Millisecond))
	say("after the move")
	if now := lead(); now != to {
		t.Errorf("broker %d leads, want %d", now, to)
	}

	// The whole cluster dies at once and comes back on its data.
	for _, id := range c.IDs() {
		if err := c.Kill(id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range c.IDs() {
		if err := c.Launch(id); err != nil {
			t.Fatal(err)
		}
	}
	begin = time.Now()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("all three ready again %v after they were all killed", time.Since(begin).Round(time.Millisecond))
	say("after all were killed")
	mustHold(t, readAll(t, ctx, c, Plaintext), acknowledged)

	begin = time.Now()
	for _, id := range c.IDs() {
		t.Logf("broker %d: %d MB resident at the end", id, residentMB(c.PID(id)))
	}
	if err := c.StopAll(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in order after %v", time.Since(begin).Round(time.Millisecond))
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

package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
)

const childDir = "DROVER_TEST_BROKER_DIR"

// TestMain runs a broker instead of the tests when a test started this binary so.
func TestMain(m *testing.M) {
	if addr := os.Getenv("DROVER_TEST_PUBLISH_TO"); addr != "" {
		publishGigabyte(addr, changelog.Compression(os.Getenv("DROVER_TEST_COMPRESSION")))
		return
	}
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	b, err := broker.New(broker.Options{Listen: os.Getenv("DROVER_TEST_BROKER_LISTEN"), DataDir: dir})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("addr:", b.Addr())
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	b.Run(ctx)
}

// publishGigabyte is a process that does nothing else, 100 KB batches 64 at a time.
func publishGigabyte(addr string, c changelog.Compression) {
	ctx := context.Background()
	l, err := changelog.Open(ctx, changelog.Options{Brokers: []string{addr}, Cluster: "test"})
	if err != nil {
		panic(err)
	}
	if _, _, err := l.Ensure(ctx, changelog.TopicSpec{}); err != nil {
		panic(err)
	}
	p := l.NewPublisher(changelog.PublisherOptions{Compression: c})
	for i := range uint64(160) {
		if _, err := p.Publish(ctx, frames(i*64+1, 64, 100_000)); err != nil {
			panic(err)
		}
	}
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	fmt.Print(string(raw))
}

// BenchmarkPublisherMemory reports the peak memory of a process that publishes.
func BenchmarkPublisherMemory(b *testing.B) {
	for _, c := range []changelog.Compression{changelog.CompressionNone, changelog.CompressionSnappy, changelog.CompressionLZ4, changelog.CompressionZstd} {
		b.Run(string(c), func(b *testing.B) {
			for b.Loop() {
				br := startChild(b, b.TempDir(), "127.0.0.1:0")
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "DROVER_TEST_PUBLISH_TO="+br.addr, "DROVER_TEST_COMPRESSION="+string(c))
				out, err := cmd.Output()
				if err != nil {
					b.Fatal(err)
				}
				for line := range strings.Lines(string(out)) {
					var kb int64
					if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
						b.ReportMetric(float64(kb)/1e3, "MB-peak")
					}
				}
				br.kill()
			}
		})
	}
}

// child is a broker in a process of its own.
type child struct {
	cmd  *exec.Cmd
	addr string
}

func startChild(t testing.TB, dir, listen string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, "DROVER_TEST_BROKER_LISTEN="+listen)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "addr: ")
	if err != nil || !ok {
		t.Fatalf("broker said %q, %v", line, err)
	}
	c.addr = addr
	return c
}

// kill is kill -9.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
}

// rss is the process's resident memory and its peak, bytes.
func (c *child) rss(t testing.TB) (now, peak int64) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(raw), "\n") {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			now = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			peak = kb << 10
		}
	}
	return now, peak
}

func open(t testing.TB, addr string) *changelog.Log {
	t.Helper()
	l, err := changelog.Open(t.Context(), changelog.Options{Brokers: []string{addr}, Cluster: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func frames(first uint64, n, size int) []changelog.Frame {
	fs := make([]changelog.Frame, 0, n)
	for i := range uint64(n) {
		rec := bytes.Repeat([]byte{byte(i)}, size)
		binary.LittleEndian.PutUint64(rec, first+i)
		fs = append(fs, changelog.SplitBatch(1, first+i, 1, rec, 0, time.Now())...)
	}
	return fs
}

// readAll returns the sequences on the topic and fails unless each follows on the
// one before, duplicates of a retried request aside.
func readAll(t testing.TB, l *changelog.Log) (last uint64) {
	t.Helper()
	s := changelog.NewSequencer(changelog.Position{Cluster: "test", Timeline: 1, Offset: -1})
	err := l.ReadRange(t.Context(), 0, 1<<62, func(e changelog.Entry) error {
		_, err := s.Next(e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.Position().Sequence
}

func TestAcknowledgedFramesSurviveKill9OfTheBroker(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir, "127.0.0.1:0")
	l := open(t, c.addr)
	if _, _, err := l.Ensure(t.Context(), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	p := l.NewPublisher(changelog.PublisherOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := uint64(1)
	for round := range 5 {
		acked := make(chan error, 1)
		go func() {
			for i := range uint64(50) {
				if _, err := p.Publish(ctx, frames(next+i*10, 10, 2000)); err != nil {
					acked <- err
					return
				}
			}
			acked <- nil
		}()
		// Kill it in the midst: once some frames of this round are there.
		for p.State().Frames < uint64(round*500+40+round*30) {
			if ctx.Err() != nil {
				t.Fatal("nothing gets published")
			}
			time.Sleep(time.Millisecond)
		}
		c.kill()
		c = startChild(t, dir, c.addr)
		if err := <-acked; err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		next += 500
		if last := readAll(t, open(t, c.addr)); last != next-1 {
			t.Fatalf("round %d: %d sequences on the topic, %d were acknowledged", round, last, next-1)
		}
	}
	if p.State().Retries == 0 {
		t.Error("the broker was never killed while a request was under way")
	}
}

// TestATornLastBatchIsCutOff is what a kill in the midst of a write leaves.
func TestATornLastBatchIsCutOff(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir, "127.0.0.1:0")
	l := open(t, c.addr)
	if _, _, err := l.Ensure(t.Context(), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if _, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(t.Context(), frames(i*10+1, 10, 500)); err != nil {
			t.Fatal(err)
		}
	}
	c.kill()
	segments, err := filepath.Glob(filepath.Join(dir, "partitions", "*", "*.dat"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	info, err := os.Stat(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segments[0], info.Size()-7); err != nil {
		t.Fatal(err)
	}
	c = startChild(t, dir, c.addr)
	l = open(t, c.addr)
	if last := readAll(t, l); last != 20 {
		t.Fatalf("%d sequences, want the 20 of the whole batches", last)
	}
	for i := range uint64(2) {
		if _, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(t.Context(), frames(i*10+21, 10, 500)); err != nil {
			t.Fatal(err)
		}
	}
	c.kill()
	c = startChild(t, dir, c.addr)
	if last := readAll(t, open(t, c.addr)); last != 40 {
		t.Fatalf("%d sequences after writing on, want 40", last)
	}
}

func TestATakenAddressIsOneClearLine(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	_, err = broker.New(broker.Options{Listen: ln.Addr().String(), DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	// The failed start must not keep the directory.
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestTwoBrokersDoNotShareADirectory(t *testing.T) {
	dir := t.TempDir()
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := broker.New(broker.Options{Listen: "127.0.0.1:0", DataDir: dir}); !errors.Is(err, broker.ErrLocked) {
		t.Fatalf("%v, want ErrLocked", err)
	}
}

func TestWrongListenAddressesAreRefused(t *testing.T) {
	for _, listen := range []string{"9092", "127.0.0.1:", "127.0.0.1:kafka", "127.0.0.1:70000"} {
		if b, err := broker.New(broker.Options{Listen: listen}); err == nil {
			b.Close()
			t.Errorf("%q was accepted", listen)
		}
	}
}

func TestRunEndsWithItsContextAndKeepsTheData(t *testing.T) {
	dir := t.TempDir()
	for round := range uint64(3) {
		b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		l := open(t, b.Addr())
		if _, _, err := l.Ensure(ctx, changelog.TopicSpec{}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(ctx, frames(round*100+1, 100, 500)); err != nil {
			t.Fatal(err)
		}
		if last := readAll(t, l); last != (round+1)*100 {
			t.Fatalf("round %d: %d sequences", round, last)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRetentionTakesOldFramesOffTheFront holds what DESIGN.md says of kfake's retention.
func TestRetentionTakesOldFramesOffTheFront(t *testing.T) {
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := open(t, b.Addr())
	if _, _, err := l.Ensure(t.Context(), changelog.TopicSpec{Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	p := l.NewPublisher(changelog.PublisherOptions{})
	old, young := frames(1, 10, 500), frames(11, 10, 500)
	for i := range old {
		old[i].Time = time.Now().Add(-2 * time.Hour)
	}
	for _, fs := range [][]changelog.Frame{old, young} {
		if _, err := p.Publish(t.Context(), fs); err != nil {
			t.Fatal(err)
		}
	}
	b.Cluster().ApplyRetention()
	first, next, err := l.Bounds(t.Context())
	if err != nil || first != 10 || next != 20 {
		t.Fatalf("bounds %d %d, %v", first, next, err)
	}
	r := l.NewReader(3)
	defer r.Close()
	if _, err := r.Next(t.Context()); !errors.Is(err, changelog.ErrNotRetained) {
		t.Fatalf("%v, want ErrNotRetained", err)
	}
}

// BenchmarkLargeTopic reports the broker's memory and start with 2 GB on disk,
// after a clean stop and after kill -9. Run with -benchtime 1x.
func BenchmarkLargeTopic(b *testing.B) {
	const gigabytes = 2
	for b.Loop() {
		dir := b.TempDir()
		c := startChild(b, dir, "127.0.0.1:0")
		l := open(b, c.addr)
		if _, _, err := l.Ensure(b.Context(), changelog.TopicSpec{}); err != nil {
			b.Fatal(err)
		}
		p := l.NewPublisher(changelog.PublisherOptions{Compression: changelog.CompressionNone})
		for i := range uint64(gigabytes * 20) {
			if _, err := p.Publish(b.Context(), frames(i*500+1, 500, 100_000)); err != nil {
				b.Fatal(err)
			}
		}
		now, peak := c.rss(b)
		b.ReportMetric(float64(now)/1e6, "MB-rss-writing")
		b.ReportMetric(float64(peak)/1e6, "MB-peak-writing")
		c.kill()
		started := time.Now()
		c = startChild(b, dir, c.addr)
		b.ReportMetric(time.Since(started).Seconds(), "s-start-after-kill")
		now, peak = c.rss(b)
		b.ReportMetric(float64(now)/1e6, "MB-rss-after-kill")
		b.ReportMetric(float64(peak)/1e6, "MB-peak-after-kill")
		if last := readAll(b, open(b, c.addr)); last != gigabytes*20*500 {
			b.Fatalf("%d sequences", last)
		}
		c.cmd.Process.Signal(syscall.SIGTERM)
		c.cmd.Wait()
		started = time.Now()
		c = startChild(b, dir, c.addr)
		b.ReportMetric(time.Since(started).Seconds(), "s-start")
		now, peak = c.rss(b)
		b.ReportMetric(float64(now)/1e6, "MB-rss")
		b.ReportMetric(float64(peak)/1e6, "MB-peak")
		c.kill()
	}
}

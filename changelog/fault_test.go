package changelog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func publish(t testing.TB, l *changelog.Log, frames ...changelog.Frame) {
	t.Helper()
	if _, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(deadline(t), frames); err != nil {
		t.Fatal(err)
	}
}

// rawMessages writes messages that are no frames, as another program would.
func rawMessages(t testing.TB, l *changelog.Log, values ...[]byte) {
	t.Helper()
	w := &kafka.Writer{Addr: kafka.TCP(l.Brokers()...), Topic: l.Topic(), BatchTimeout: time.Millisecond, RequiredAcks: kafka.RequireAll}
	defer w.Close()
	for _, v := range values {
		if err := w.WriteMessages(deadline(t), kafka.Message{Value: v}); err != nil {
			t.Fatal(err)
		}
	}
}

// sequence reads from offset until the Sequencer fails or delivered last.
func sequence(t testing.TB, l *changelog.Log, p changelog.Position, offset int64, last uint64) (changelog.Position, error) {
	t.Helper()
	r := l.NewReader(offset)
	defer r.Close()
	s := changelog.NewSequencer(p)
	ctx := deadline(t)
	for s.Position().Sequence < last {
		e, err := r.Next(ctx)
		if err != nil {
			return s.Position(), err
		}
		if _, err := s.Next(e); err != nil {
			return s.Position(), err
		}
	}
	return s.Position(), nil
}

// TestLostFramesOnTheTopicStopTheReplica is fault 1 on a topic.
func TestLostFramesOnTheTopicStopTheReplica(t *testing.T) {
	frames, last := stream(1, 1, 40, 100, 30)
	frames = append(frames, heartbeat(1, last))
	for lose := 0; lose < len(frames)-1; lose += 7 {
		l, _ := newLog(t)
		publish(t, l, append(append([]changelog.Frame(nil), frames[:lose]...), frames[lose+1:]...)...)
		p, err := sequence(t, l, at(1, 0), 0, last)
		if !errors.Is(err, changelog.ErrHole) {
			t.Fatalf("frame %d lost: %v", lose, err)
		}
		if p.Sequence != frames[lose].First-1 {
			t.Errorf("frame %d (from sequence %d) lost: applied up to %d", lose, frames[lose].First, p.Sequence)
		}
	}
}

// TestDamagedMessagesOnTheTopicStopTheReplica is fault 7 on a topic.
func TestDamagedMessagesOnTheTopicStopTheReplica(t *testing.T) {
	good := batch(1, 3, 1)
	for name, value := range damaged(t, good.AppendTo(nil)) {
		l, _ := newLog(t)
		publish(t, l, batch(1, 1, 2))
		rawMessages(t, l, value)
		publish(t, l, batch(1, 3, 1))
		p, err := sequence(t, l, at(1, 0), 0, 3)
		if !errors.Is(err, changelog.ErrCorrupt) || !strings.Contains(err.Error(), "offset 1 ") {
			t.Errorf("%s: %v", name, err)
		}
		if p.Sequence != 2 || p.Offset != 0 {
			t.Errorf("%s: went on to %s", name, p)
		}
		// `drover log inspect` shows all of it.
		var seen []error
		if err := l.ReadRange(deadline(t), 0, 10, func(e changelog.Entry) error { seen = append(seen, e.Err); return nil }); err != nil {
			t.Errorf("%s: inspect: %v", name, err)
		}
		if len(seen) != 3 || seen[0] != nil || seen[1] == nil || seen[2] != nil {
			t.Errorf("%s: inspect saw %v", name, seen)
		}
	}
}

// TestAnswersThatGoAstrayCostNothing drops, refuses and delays the answers to
// produce requests: every batch is delivered once, in order (fault 5).
func TestAnswersThatGoAstrayCostNothing(t *testing.T) {
	t.Parallel()
	l, b := newLog(t)
	var requests, dropped, refused, delayed atomic.Int64
	b.Cluster().ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().KeepControl()
		if isAgain(req) {
			return nil, nil, false
		}
		switch requests.Add(1) % 5 {
		case 1: // written, and the connection dies before the answer
			dropped.Add(1)
			writeAgain(t, b, req)
			return nil, errors.New("connection lost"), true
		case 2: // refused before writing
			refused.Add(1)
			return produceError(req, kerr.NotEnoughReplicas.Code), nil, true
		case 3: // written, and the answer says that it is not known whether
			delayed.Add(1)
			writeAgain(t, b, req)
			return produceError(req, kerr.RequestTimedOut.Code), nil, true
		default:
			return nil, nil, false
		}
	})
	frames, last := stream(1, 1, 60, 200, 90)
	p := l.NewPublisher(changelog.PublisherOptions{})
	for i := 0; i < len(frames); i += 5 {
		if _, err := p.Publish(deadline(t), frames[i:min(len(frames), i+5)]); err != nil {
			t.Fatal(err)
		}
	}
	follow(t, l, at(1, 0), 0, last)
	if dropped.Load() == 0 || refused.Load() == 0 || delayed.Load() == 0 || p.State().Retries == 0 {
		t.Fatalf("the faults did not fire: %d %d %d", dropped.Load(), refused.Load(), delayed.Load())
	}
	_, next, err := l.Bounds(deadline(t))
	if err != nil || next <= int64(len(frames)) {
		t.Fatalf("%d frames on the topic, %d published: nothing was written twice", next, len(frames))
	}
	if st := p.State(); !st.OutageSince.IsZero() || st.Frames != uint64(len(frames)) {
		t.Errorf("state %+v", st)
	}
}

func isAgain(req kmsg.Request) bool {
	id := req.(*kmsg.ProduceRequest).TransactionID
	return id != nil && *id == againID
}

// writeAgain hands a request's records to the broker over another connection.
func writeAgain(t testing.TB, b *broker.Broker, req kmsg.Request) {
	body := req.(*kmsg.ProduceRequest)
	done := make(chan struct{})
	// The control function runs on the broker's own loop, which must go on to
	// take this request: sleep until it is done.
	go func() {
		defer close(done)
		if err := produceRaw(b.Addr(), body); err != nil {
			t.Errorf("write again: %v", err)
		}
	}()
	b.Cluster().SleepControl(func() { <-done })
}

func produceError(req kmsg.Request, code int16) kmsg.Response {
	res := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.(*kmsg.ProduceRequest).Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, code
			rt.Partitions = append(rt.Partitions, rp)
		}
		res.Topics = append(res.Topics, rt)
	}
	return res
}

// TestAnEarlierRequestThatLandsLateIsDropped: the answer to a request never
// comes, the retry is acknowledged, newer ones too, then the first one lands.
func TestAnEarlierRequestThatLandsLateIsDropped(t *testing.T) {
	t.Parallel()
	l, b := newLog(t)
	frames, last := stream(1, 1, 30, 200, 90)
	var mu sync.Mutex
	var late []*kmsg.ProduceRequest
	n := 0
	b.Cluster().ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().KeepControl()
		if isAgain(req) {
			return nil, nil, false
		}
		mu.Lock()
		defer mu.Unlock()
		if n++; n%3 == 1 {
			late = append(late, req.(*kmsg.ProduceRequest))
			return nil, errors.New("connection lost"), true
		}
		return nil, nil, false
	})
	p := l.NewPublisher(changelog.PublisherOptions{})
	for i := 0; i < len(frames); i += 4 {
		if _, err := p.Publish(deadline(t), frames[i:min(len(frames), i+4)]); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		q := late
		if len(q) > 2 {
			late = nil
		} else {
			q = nil
		}
		n = 1 // the next requests pass
		mu.Unlock()
		for _, req := range q {
			if err := produceRaw(b.Addr(), req); err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		n = 0
		mu.Unlock()
	}
	follow(t, l, at(1, 0), 0, last)
	if _, next, _ := l.Bounds(deadline(t)); next <= int64(len(frames)) {
		t.Fatal("no request landed late")
	}
}

func TestPublishGoesOnAfterAMovedLeaderAndANewBroker(t *testing.T) {
	t.Parallel()
	b := startBroker(t, broker.Options{Kfake: []kfake.Opt{kfake.NumBrokers(3), kfake.Ports()}})
	l := openLog(t, b.Addr())
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	p := l.NewPublisher(changelog.PublisherOptions{})
	frames, last := stream(1, 1, 90, 100, 0)
	for i := range frames {
		if i%10 == 5 {
			if err := b.Cluster().MoveTopicPartition(l.Topic(), 0, int32(i/10%3)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Publish(deadline(t), frames[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if p.State().Retries == 0 {
		t.Error("the leader never moved")
	}
	follow(t, l, at(1, 0), 0, last)
}

func TestAnOutageIsLoggedOnceAndEnds(t *testing.T) {
	b := startBroker(t, broker.Options{})
	var mu sync.Mutex
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil))
	l, err := changelog.Open(deadline(t), changelog.Options{Brokers: []string{b.Addr()}, Cluster: testCluster, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	h := b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	p := l.NewPublisher(changelog.PublisherOptions{})
	done := make(chan error, 1)
	go func() {
		_, err := p.Publish(deadline(t), []changelog.Frame{batch(1, 1, 1)})
		done <- err
	}()
	for p.State().Retries < 4 {
		select {
		case err := <-done:
			t.Fatalf("gave up: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if st := p.State(); st.OutageSince.IsZero() || !errors.Is(st.LastError, kafka.NotEnoughReplicas) {
		t.Errorf("state in the outage: %+v", st)
	}
	h.Remove()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(out.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "answers again") {
		t.Errorf("the end was not logged:\n%s", out.String())
	}
}

type lockedWriter struct {
	mu  *sync.Mutex
	out *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

func TestPublishEndsWithItsContextAndSaysWhy(t *testing.T) {
	l, b := newLog(t)
	b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(ctx, []changelog.Frame{batch(1, 1, 1)})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, kafka.NotEnoughReplicas) {
		t.Fatalf("%v", err)
	}
}

func TestWhatKafkaRefusesIsReturnedWithAHint(t *testing.T) {
	for _, c := range []struct {
		err  *kerr.Error
		want error
		hint string
	}{
		{kerr.MessageTooLarge, kafka.MessageSizeTooLarge, "max.message.bytes=4194304"},
		{kerr.RecordListTooLarge, kafka.RecordListTooLarge, "segment.bytes=1073741824"},
		{kerr.TopicAuthorizationFailed, kafka.TopicAuthorizationFailed, "grant"},
	} {
		l, b := newLog(t)
		b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: c.err, Count: -1})
		_, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(deadline(t), []changelog.Frame{batch(1, 1, 1)})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.hint) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

func TestAReaderWaitsOutTheBrokerAndGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	b := startBroker(t, broker.Options{DataDir: dir})
	l := openLog(t, b.Addr())
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	publish(t, l, batch(1, 1, 1))
	r := l.NewReader(0)
	defer r.Close()
	ctx := deadline(t)
	for seq := uint64(1); seq <= 4; seq++ {
		e, err := r.Next(ctx)
		if err != nil || e.Frame.First != seq || e.Offset != int64(seq-1) || e.HighWater < int64(seq) {
			t.Fatalf("entry %+v, %v; want sequence %d", e, err, seq)
		}
		b.Close()
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		if _, err := r.Next(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v without a broker", err)
		}
		cancel()
		b = startBroker(t, broker.Options{Listen: b.Addr(), DataDir: dir})
		publish(t, l, batch(1, seq+1, 1))
	}
}

// TestAReaderNeverJumps: retention, truncation and deletion are errors (fault 8).
func TestAReaderNeverJumps(t *testing.T) {
	t.Parallel()
	l, b := newLog(t)
	frames, _ := stream(1, 1, 20, 50, 0)
	publish(t, l, frames...)
	next := func(offset int64) error {
		r := l.NewReader(offset)
		defer r.Close()
		_, err := r.Next(deadline(t))
		return err
	}
	if err := next(30); !errors.Is(err, changelog.ErrTruncated) {
		t.Errorf("behind the end: %v", err)
	}
	deleteRecords(t, b.Addr(), l.Topic(), 10)
	var gone *changelog.NotRetainedError
	if err := next(5); !errors.As(err, &gone) || gone.FirstOffset != 10 {
		t.Errorf("before the first: %v", err)
	}
	if err := l.ReadRange(deadline(t), 5, 20, func(changelog.Entry) error { return nil }); !errors.Is(err, changelog.ErrNotRetained) {
		t.Errorf("range before the first: %v", err)
	}
	if err := next(10); err != nil {
		t.Errorf("at the first: %v", err)
	}
	// Deleted under a running reader.
	r := l.NewReader(19)
	defer r.Close()
	if _, err := r.Next(deadline(t)); err != nil {
		t.Fatal(err)
	}
	client := &kafka.Client{Addr: kafka.TCP(b.Addr())}
	if res, err := client.DeleteTopics(deadline(t), &kafka.DeleteTopicsRequest{Topics: []string{l.Topic()}}); err != nil || res.Errors[l.Topic()] != nil {
		t.Fatalf("%v %v", err, res)
	}
	if _, err := r.Next(deadline(t)); !errors.Is(err, changelog.ErrNoTopic) || !strings.Contains(err.Error(), l.Topic()) {
		t.Errorf("deleted: %v", err)
	}
}

// TestARottenRecordBatchIsAnError: a byte of the broker's disk flips.
func TestARottenRecordBatchIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, broker.Options{DataDir: dir})
	l := openLog(t, b.Addr())
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	segments := func() string {
		found, err := filepath.Glob(filepath.Join(dir, "partitions", "*", "*.dat"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		return found[0]
	}
	for seq := uint64(1); seq <= 3; seq++ {
		publish(t, l, batch(1, seq, 1))
		info, err := os.Stat(segments())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	f, err := os.OpenFile(segments(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var one [1]byte
	if _, err := f.ReadAt(one[:], sizes[1]-3); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 4
	if _, err := f.WriteAt(one[:], sizes[1]-3); err != nil {
		t.Fatal(err)
	}
	p, err := sequence(t, l, at(1, 0), 0, 3)
	if !errors.Is(err, changelog.ErrCorrupt) || p.Sequence != 1 {
		t.Errorf("applied up to %d, %v", p.Sequence, err)
	}
}

func TestAnIdleReaderDoesNotSpin(t *testing.T) {
	t.Parallel()
	l, b := newLog(t)
	publish(t, l, batch(1, 1, 1))
	var fetches atomic.Int64
	b.Cluster().ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		fetches.Add(1)
		return nil, nil, false
	})
	r := l.NewReader(0)
	defer r.Close()
	if _, err := r.Next(deadline(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if n := fetches.Load(); n < 1 || n > 4 {
		t.Errorf("%d fetches in 3 s of silence", n)
	}
}

func TestAClosedReaderSaysSo(t *testing.T) {
	l, _ := newLog(t)
	r := l.NewReader(0)
	r.Close()
	if _, err := r.Next(deadline(t)); !errors.Is(err, changelog.ErrClosed) {
		t.Errorf("%v", err)
	}
	r.Close()
}

func TestOpenWithoutABrokerIsOneClearLine(t *testing.T) {
	t.Parallel()
	started := time.Now()
	_, err := changelog.Open(t.Context(), changelog.Options{Brokers: []string{"127.0.0.1:1", "127.0.0.1:2"}, Cluster: testCluster})
	if !errors.Is(err, changelog.ErrBrokersUnreachable) || strings.Contains(err.Error(), "\n") ||
		!strings.Contains(err.Error(), "127.0.0.1:1, 127.0.0.1:2") || !strings.Contains(err.Error(), "--kafka.brokers") {
		t.Errorf("%v", err)
	}
	if took := time.Since(started); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
	for _, o := range []changelog.Options{
		{Brokers: []string{"127.0.0.1:9"}, Cluster: "Upper"}, {Brokers: nil, Cluster: "a"}, {Brokers: []string{"nohost"}, Cluster: "a"},
	} {
		if _, err := changelog.Open(t.Context(), o); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestEnsureSaysWhatDoesNotFit(t *testing.T) {
	b := startBroker(t, broker.Options{Kfake: []kfake.Opt{kfake.NumBrokers(3), kfake.Ports()}})
	l := openLog(t, b.Addr())
	client := &kafka.Client{Addr: kafka.TCP(b.Addr())}
	res, err := client.CreateTopics(deadline(t), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: l.Topic(), NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
			{ConfigName: "cleanup.policy", ConfigValue: "compact"}, {ConfigName: "retention.ms", ConfigValue: "1000"},
			{ConfigName: "max.message.bytes", ConfigValue: "1000"},
		}}}})
	if err != nil || res.Errors[l.Topic()] != nil {
		t.Fatalf("%v %v", err, res)
	}
	created, findings, err := l.Ensure(deadline(t), changelog.TopicSpec{})
	if err != nil || created {
		t.Fatalf("created %v, %v", created, err)
	}
	found := make(map[string]bool)
	for _, f := range findings {
		found[f.Setting] = true
		if f.Fix == "" || strings.Contains(f.String(), "\n") {
			t.Errorf("%+v", f)
		}
	}
	for _, want := range []string{"partitions", "cleanup.policy", "retention.ms", "max.message.bytes", "min.insync.replicas"} {
		if !found[want] {
			t.Errorf("%s not found among %v", want, findings)
		}
	}
}

func TestAMissingTopicIsNamed(t *testing.T) {
	t.Parallel()
	b := startBroker(t, broker.Options{})
	l := openLog(t, b.Addr())
	_, _, err := l.Bounds(deadline(t))
	if !errors.Is(err, changelog.ErrNoTopic) || !strings.Contains(err.Error(), l.Topic()) || !strings.Contains(err.Error(), "--create") {
		t.Errorf("%v", err)
	}
	_, err = l.NewPublisher(changelog.PublisherOptions{}).Publish(deadline(t), []changelog.Frame{batch(1, 1, 1)})
	if !errors.Is(err, changelog.ErrNoTopic) {
		t.Errorf("publish: %v", err)
	}
}

func ExampleTopicName() {
	fmt.Println(changelog.TopicName("mainnet-blue"))
	// Output: drover.mainnet-blue.log
}

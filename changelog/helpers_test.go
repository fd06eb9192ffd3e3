package changelog_test

import (
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const testCluster = "test"

// deadline is when a test gives up waiting.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startBroker(t testing.TB, o broker.Options) *broker.Broker {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func openLog(t testing.TB, addr string) *changelog.Log {
	t.Helper()
	l, err := changelog.Open(deadline(t), changelog.Options{Brokers: []string{addr}, Cluster: testCluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// newLog returns a Log on a fresh in-memory broker with its topic.
func newLog(t testing.TB) (*changelog.Log, *broker.Broker) {
	t.Helper()
	b := startBroker(t, broker.Options{})
	l := openLog(t, b.Addr())
	if _, findings, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil || len(findings) != 0 {
		t.Fatalf("ensure: findings %v, err %v", findings, err)
	}
	return l, b
}

// record makes a batch's bytes; they tell first and count so that a test sees
// what was delivered.
func record(first uint64, count uint32, size int) []byte {
	size = max(size, 12)
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b, first)
	binary.LittleEndian.PutUint32(b[8:], count)
	r := rand.New(rand.NewPCG(first, 7))
	for i := 12; i < size; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// stream makes n batches of counts 1 to 4, the first at sequence from.
func stream(timeline, from uint64, n, size, maxPayload int) (frames []changelog.Frame, last uint64) {
	next := from
	for i := range n {
		count := uint32(i%4 + 1)
		frames = append(frames, changelog.SplitBatch(timeline, next, count, record(next, count, size), maxPayload, time.Now())...)
		next += uint64(count)
	}
	return frames, next - 1
}

// follow reads from offset with a Sequencer until sequence last is delivered,
// and checks that batches come in order, each once, with their own bytes.
func follow(t testing.TB, l *changelog.Log, at changelog.Position, offset int64, last uint64) changelog.Position {
	t.Helper()
	ctx := deadline(t)
	r := l.NewReader(offset)
	defer r.Close()
	s := changelog.NewSequencer(at)
	for s.Position().Sequence < last {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("at %s: %v", s.Position(), err)
		}
		due := s.Position().Sequence + 1
		ev, err := s.Next(e)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind != changelog.EventBatch {
			continue
		}
		if ev.First != due || binary.LittleEndian.Uint64(ev.Record) != due || binary.LittleEndian.Uint32(ev.Record[8:]) != ev.Count {
			t.Fatalf("delivered %d (record of %d) where %d was due", ev.First, binary.LittleEndian.Uint64(ev.Record), due)
		}
	}
	return s.Position()
}

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func dirSize(t testing.TB, dir string) (size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		// Kafka's index files are reserved, not filled.
		if err != nil || d.IsDir() || strings.HasSuffix(d.Name(), "index") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// request sends one raw request to a broker and reads its response.
func request(addr string, req kmsg.Request) (kmsg.Response, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test"))
	if _, err := conn.Write(f.AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	res := req.ResponseKind()
	body = body[4:]
	if res.IsFlexible() && res.Key() != int16(kmsg.ApiVersions) {
		body = body[1:]
	}
	return res, res.ReadFrom(body)
}

// againID marks what produceRaw sends, so that controls let it pass.
const againID = "again"

// produceRaw writes a request's records once more.
func produceRaw(addr string, req *kmsg.ProduceRequest) error {
	again := *req
	id := againID
	again.TransactionID = &id
	res, err := request(addr, &again)
	if err != nil {
		return err
	}
	if code := res.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		return kerr.ErrorForCode(code)
	}
	return nil
}

// deleteRecords moves the topic's first offset, as retention does.
func deleteRecords(t testing.TB, addr, topic string, first int64) {
	t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.SetVersion(1)
	req.TimeoutMillis = 5000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Offset = first
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	res, err := request(addr, req)
	if err != nil {
		t.Fatal(err)
	}
	if code := res.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
}

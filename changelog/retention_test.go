package changelog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

func TestRetentionIsReadAndSet(t *testing.T) {
	l, _ := newLog(t)
	testRetention(t, l)
}

// testRetention wants a topic as Ensure creates it.
func testRetention(t *testing.T, l *changelog.Log) {
	r, err := l.Retention(deadline(t))
	if err != nil || r.Time != changelog.DefaultRetention || r.Bytes != 0 || r.SegmentBytes < 1<<20 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, d := range []time.Duration{90 * time.Minute, 1500 * time.Millisecond, 0, 400 * 24 * time.Hour} {
		if err := l.SetRetention(deadline(t), d); err != nil {
			t.Fatal(err)
		}
		until(t, func() error {
			if got, err := l.Retention(deadline(t)); err != nil || got.Time != d || got.Bytes != r.Bytes || got.SegmentBytes != r.SegmentBytes {
				return errors.Join(err, errors.New(got.Time.String()+" instead of "+d.String()))
			}
			return nil
		})
	}
	for _, d := range []time.Duration{-time.Second, time.Microsecond} {
		if err := l.SetRetention(deadline(t), d); err == nil {
			t.Errorf("%v was taken", d)
		}
	}
	// The other settings stay: it is an incremental change.
	if _, findings, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil || len(findings) > 0 {
		t.Errorf("%v, %v", findings, err)
	}
}

func TestTimeAtAnOffset(t *testing.T) {
	l, b := newLog(t)
	at := func(offset int64) (time.Time, error) { return l.TimeAt(deadline(t), offset) }
	if got, err := at(0); err != nil || !got.IsZero() {
		t.Errorf("an empty topic: %v, %v", got, err)
	}
	begun := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	var frames []changelog.Frame
	for i := range 10 {
		frames = append(frames, changelog.SplitBatch(1, uint64(i+1), 1, record(uint64(i+1), 1, 100), 0, begun.Add(time.Duration(i)*time.Minute))...)
	}
	publish(t, l, frames...)
	for _, offset := range []int64{0, 4, 9} {
		if got, err := at(offset); err != nil || !got.Equal(begun.Add(time.Duration(offset)*time.Minute)) {
			t.Errorf("offset %d: %v, %v", offset, got, err)
		}
	}
	for _, offset := range []int64{10, 11, 1000} {
		if got, err := at(offset); err != nil || !got.IsZero() {
			t.Errorf("offset %d, behind the end: %v, %v", offset, got, err)
		}
	}
	deleteRecords(t, b.Addr(), l.Topic(), 5)
	var gone *changelog.NotRetainedError
	if _, err := at(4); !errors.As(err, &gone) || gone.FirstOffset != 5 {
		t.Errorf("dropped: %v", err)
	}
	if got, err := at(5); err != nil || !got.Equal(begun.Add(5*time.Minute)) {
		t.Errorf("the first one left: %v, %v", got, err)
	}
	other, err := changelog.Open(deadline(t), changelog.Options{Brokers: []string{b.Addr()}, Cluster: "absent"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.TimeAt(deadline(t), 0); !errors.Is(err, changelog.ErrNoTopic) {
		t.Errorf("no topic: %v", err)
	}
	if _, err := other.Retention(deadline(t)); err == nil {
		t.Error("the retention of no topic")
	}
	if err := other.SetRetention(deadline(t), time.Hour); err == nil {
		t.Error("the retention of no topic was set")
	}
}

func TestRetentionOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	k := localkafka.ForTest(t, localkafka.Options{
		Listeners: []localkafka.Listener{localkafka.Plaintext, localkafka.SASLTLS}, Users: []localkafka.User{userReplica, userNobody},
		ACLs: true, SuperUsers: []string{"ANONYMOUS", localkafka.ClientName},
	})
	l, err := changelog.Open(deadline(t), changelog.Options{Brokers: k.Bootstrap(localkafka.Plaintext), Cluster: "retention"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	testRetention(t, l)

	// One line that names the right, at once.
	allowPrefix(t, k, userReplica.Name, "drover.retention.", kafka.ACLOperationTypeRead, kafka.ACLOperationTypeDescribe)
	replica := openAs(t, k, "retention", userReplica)
	until(t, func() error { _, _, err := replica.Bounds(deadline(t)); return err })
	begun := time.Now()
	if _, err := replica.Retention(deadline(t)); !errors.Is(err, changelog.ErrForbidden) || !strings.Contains(err.Error(), "DescribeConfigs on topic drover.retention.log") {
		t.Errorf("reading without the right: %v", err)
	}
	if err := replica.SetRetention(deadline(t), time.Hour); !errors.Is(err, changelog.ErrForbidden) || !strings.Contains(err.Error(), "AlterConfigs on topic drover.retention.log") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("setting without the right: %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the refusals took %v", took)
	}
}

package changelog_test

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"testing"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestSearchesOnATopic runs the searches against a broker; search_test.go has the
// cases.
func TestSearchesOnATopic(t *testing.T) {
	b := startBroker(t, broker.Options{DataDir: t.TempDir()})
	l := openLog(t, b.Addr())
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	if tail, err := l.Tail(deadline(t)); err != nil || !tail.Empty {
		t.Fatalf("empty topic: %+v, %v", tail, err)
	}
	publish(t, l, start(1, changelog.TimelineStart{Reason: changelog.ReasonInitial, Genesis: "0xabc"}))
	frames, last := stream(1, 1, 4000, 600, 250)
	p := l.NewPublisher(changelog.PublisherOptions{})
	for i := 0; i < len(frames); i += 10 {
		if _, err := p.Publish(deadline(t), frames[i:min(len(frames), i+10)]); err != nil {
			t.Fatal(err)
		}
	}
	tail, err := l.Tail(deadline(t))
	if err != nil || tail.Sequence != last || tail.Timeline != 1 || tail.Next != int64(len(frames))+1 || tail.Genesis() != "0xabc" {
		t.Fatalf("tail %+v, %v; want sequence %d", tail, err, last)
	}
	var fetches atomic.Int64
	b.Cluster().ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		fetches.Add(1)
		return nil, nil, false
	})
	for i := 0; i < len(frames); i += 997 {
		seq := frames[i].First - 1
		fetches.Store(0)
		offset, err := l.FindSequence(deadline(t), 1, seq)
		if err != nil {
			t.Fatal(err)
		}
		if n := fetches.Load(); n == 0 || n > int64(2*bits.Len(uint(len(frames)))) {
			t.Errorf("sequence %d: %d fetches for %d frames", seq, n, len(frames))
		}
		want := int64(i) + 1 - int64(frames[i].Part-1)
		if offset > want || offset < want-1 {
			t.Errorf("sequence %d: offset %d, part 1 is at %d", seq, offset, want)
		}
		follow(t, l, changelog.Position{Cluster: testCluster, Timeline: 1, Sequence: seq}, offset, min(last, seq+20))
	}
	if _, err := l.Join(deadline(t), changelog.Position{Cluster: "other", Timeline: 1}); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("%v", err)
	}
	deleteRecords(t, b.Addr(), l.Topic(), 500)
	if _, err := l.Join(deadline(t), at(1, 3)); !errors.Is(err, changelog.ErrNotRetained) {
		t.Errorf("%v", err)
	}
}

func TestATopicOfAnotherClusterIsRefused(t *testing.T) {
	l, _ := newLog(t)
	publish(t, l, changelog.HeartbeatFrame(1, 5, changelog.Heartbeat{Cluster: "green"}, goldenTime))
	if _, err := l.Tail(deadline(t)); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("tail: %v", err)
	}
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("ensure: %v", err)
	}
	if _, err := sequence(t, l, at(1, 5), 0, 6); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("sequencer: %v", err)
	}
}

func TestATopicOfAnotherProgramIsRefused(t *testing.T) {
	l, _ := newLog(t)
	rawMessages(t, l, []byte(`{"some":"json"}`))
	tail, err := l.Tail(deadline(t))
	if err != nil || !errors.Is(tail.Damaged, changelog.ErrBadFrame) || tail.Empty {
		t.Errorf("tail: %+v, %v", tail, err)
	}
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("ensure: %v", err)
	}
}

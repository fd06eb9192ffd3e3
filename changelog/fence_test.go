package changelog_test

import (
	"errors"
	"testing"

	"github.com/drover-io/drover/changelog"
	"github.com/segmentio/kafka-go"
)

// TestAWriterOnANewerTimelineFences breaks I4 at the master's side.
func TestAWriterOnANewerTimelineFences(t *testing.T) {
	l, _ := newLog(t)
	publish(t, l, batch(1, 1, 1))
	tail, err := l.Tail(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var foreign []uint64
	old := l.NewPublisher(changelog.PublisherOptions{Tail: tail, OnForeign: func(e changelog.Entry) { foreign = append(foreign, e.Frame.Timeline) }})
	fresh := l.NewPublisher(changelog.PublisherOptions{Tail: tail})
	mustPublish := func(p *changelog.Publisher, fs ...changelog.Frame) {
		t.Helper()
		if _, err := p.Publish(deadline(t), fs); err != nil {
			t.Fatal(err)
		}
	}
	mustPublish(old, batch(1, 2, 1))
	mustPublish(fresh, takeover(2, 1, 2), batch(2, 3, 1))
	_, err = old.Publish(deadline(t), []changelog.Frame{heartbeat(1, 2)})
	if !errors.Is(err, changelog.ErrFenced) {
		t.Fatalf("%v, want ErrFenced", err)
	}
	if len(foreign) != 1 || foreign[0] != 2 {
		t.Errorf("foreign timelines %v", foreign)
	}
	// The new one is not disturbed by what the old one wrote.
	mustPublish(fresh, batch(2, 4, 1))
	if p, err := sequence(t, l, at(1, 0), 0, 4); err != nil || p.Timeline != 2 {
		t.Errorf("%s, %v", p, err)
	}
}

func TestOfTwoThatOpenATimelineTheFirstWins(t *testing.T) {
	l, _ := newLog(t)
	publish(t, l, batch(1, 1, 1))
	tail, err := l.Tail(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	a, b := l.NewPublisher(changelog.PublisherOptions{Tail: tail}), l.NewPublisher(changelog.PublisherOptions{Tail: tail})
	startOf := func(geth string) changelog.Frame {
		return start(2, changelog.TimelineStart{Reason: changelog.ReasonTakeover, PreviousTimeline: 1, PreviousSequence: 1, Base: 1, GethVersion: geth})
	}
	if _, err := a.Publish(deadline(t), []changelog.Frame{startOf("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(deadline(t), []changelog.Frame{startOf("b"), batch(2, 2, 3)}); !errors.Is(err, changelog.ErrFenced) {
		t.Fatalf("the second: %v", err)
	}
	if _, err := a.Publish(deadline(t), []changelog.Frame{batch(2, 2, 1)}); err != nil {
		t.Fatalf("the first: %v", err)
	}
	if _, err := sequence(t, l, at(1, 0), 0, 2); err != nil {
		t.Error(err)
	}
}

func TestAnotherWriterWithOtherDataForASequenceFences(t *testing.T) {
	l, _ := newLog(t)
	publish(t, l, batch(1, 1, 1))
	tail, err := l.Tail(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	p := l.NewPublisher(changelog.PublisherOptions{Tail: tail})
	publish(t, l, batch(1, 2, 1)) // a predecessor's request that landed late: the same journal
	if _, err := p.Publish(deadline(t), []changelog.Frame{batch(1, 2, 1)}); err != nil {
		t.Fatalf("the same data: %v", err)
	}
	publish(t, l, changelog.SplitBatch(1, 3, 1, record(99, 1, 40), 0, goldenTime)...)
	if _, err := p.Publish(deadline(t), []changelog.Frame{batch(1, 3, 1)}); !errors.Is(err, changelog.ErrFenced) {
		t.Fatalf("other data: %v", err)
	}
}

func TestAcknowledgedFramesThatVanishAreNoticed(t *testing.T) {
	l, b := newLog(t)
	p := l.NewPublisher(changelog.PublisherOptions{})
	if _, err := p.Publish(deadline(t), []changelog.Frame{batch(1, 1, 1), batch(1, 2, 1)}); err != nil {
		t.Fatal(err)
	}
	client := &kafka.Client{Addr: kafka.TCP(b.Addr())}
	if _, err := client.DeleteTopics(deadline(t), &kafka.DeleteTopicsRequest{Topics: []string{l.Topic()}}); err != nil {
		t.Fatal(err)
	}
	if created, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	if _, err := p.Publish(deadline(t), []changelog.Frame{batch(1, 3, 1)}); !errors.Is(err, changelog.ErrTruncated) {
		t.Fatalf("%v, want ErrTruncated", err)
	}
}

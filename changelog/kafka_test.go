package changelog_test

import (
	"testing"

	"github.com/drover-io/drover/changelog"
)

func TestPublishedFramesAreReadBackInOrder(t *testing.T) {
	l, _ := newLog(t)
	frames, last := stream(1, 1, 500, 3000, 1000)
	base, err := l.NewPublisher(changelog.PublisherOptions{}).Publish(deadline(t), frames)
	if err != nil || base != 0 {
		t.Fatalf("base %d, err %v", base, err)
	}
	at := follow(t, l, changelog.Position{Cluster: testCluster, Timeline: 1, Offset: -1}, 0, last)
	if want := int64(len(frames)) - 1; at.Offset != want {
		t.Errorf("position at offset %d, want %d", at.Offset, want)
	}
}

package changelog_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/drover-io/drover/changelog"
)

// TestOnApacheKafka runs against the brokers that DROVER_TEST_KAFKA names (a list
// of host:port; `make kafka` starts one): record batches made here must be what
// Apache Kafka accepts, in every compression.
func TestOnApacheKafka(t *testing.T) {
	brokers := os.Getenv("DROVER_TEST_KAFKA")
	if brokers == "" {
		t.Skip("DROVER_TEST_KAFKA is not set")
	}
	for _, c := range compressions {
		t.Run(string(c), func(t *testing.T) {
			cluster := fmt.Sprintf("test-%s-%x", c, rand.Uint64())
			l, err := changelog.Open(deadline(t), changelog.Options{Brokers: strings.Split(brokers, ","), Cluster: cluster})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if created, findings, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil || !created || len(findings) != 0 {
				t.Fatalf("created %v, findings %v, err %v", created, findings, err)
			}
			if created, findings, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil || created || len(findings) != 0 {
				t.Fatalf("again: created %v, findings %v, err %v", created, findings, err)
			}
			p := l.NewPublisher(changelog.PublisherOptions{Compression: c})
			frames, last := stream(1, 1, 2000, 3000, 1000)
			for i := 0; i < len(frames); i += 97 {
				if _, err := p.Publish(deadline(t), frames[i:min(len(frames), i+97)]); err != nil {
					t.Fatal(err)
				}
			}
			large, end := stream(1, last+1, 4, 3_000_000, 0)
			if _, err := p.Publish(deadline(t), append(large, changelog.HeartbeatFrame(1, end, changelog.Heartbeat{Cluster: cluster}, goldenTime))); err != nil {
				t.Fatal(err)
			}
			follow(t, l, changelog.Position{Cluster: cluster, Timeline: 1, Offset: -1}, 0, end)
			tail, err := l.Tail(deadline(t))
			if err != nil || tail.Sequence != end {
				t.Fatalf("tail %+v, %v", tail, err)
			}
			for i := 0; i < len(frames); i += 555 {
				offset, err := l.FindSequence(deadline(t), 1, frames[i].First-1)
				if want := int64(i) - int64(frames[i].Part-1); err != nil || offset != want {
					t.Errorf("sequence %d: offset %d, %v; want %d", frames[i].First, offset, err, want)
				}
			}
		})
	}
}

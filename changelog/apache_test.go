package changelog_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

var (
	userAll     = localkafka.User{Name: "operator", Password: "operator-secret"}
	userMaster  = localkafka.User{Name: "drover-master", Password: "master-secret"}
	userReplica = localkafka.User{Name: "drover-replica", Password: "replica-secret"}
	userNobody  = localkafka.User{Name: "nobody", Password: "nobody-secret"}
)

// TestOnApacheKafka runs against one real broker with every kind of listener.
func TestOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	k := localkafka.ForTest(t, localkafka.Options{
		Listeners: []localkafka.Listener{localkafka.Plaintext, localkafka.TLS, localkafka.MutualTLS, localkafka.ExpiredTLS, localkafka.SASLTLS},
		Users:     []localkafka.User{userAll, userMaster, userReplica, userNobody},
		ACLs:      true, SuperUsers: []string{userAll.Name, "ANONYMOUS", localkafka.ClientName},
	})
	for _, c := range compressions {
		t.Run("record batches/"+string(c), func(t *testing.T) { testRecordBatches(t, k, c) })
	}
	t.Run("ways in", func(t *testing.T) { testWaysIn(t, k) })
	t.Run("ways that are closed", func(t *testing.T) { testClosedWays(t, k) })
	t.Run("rights", func(t *testing.T) { testRights(t, k) })
	t.Run("exchanged password", func(t *testing.T) { testExchangedPassword(t, k) })
	t.Run("two clusters", func(t *testing.T) { testTwoClusters(t, k) })
}

// testRecordBatches: what encoder makes must be what Apache Kafka accepts.
func testRecordBatches(t *testing.T, k *localkafka.Cluster, c changelog.Compression) {
	cluster := fmt.Sprintf("test-%s-%x", c, rand.Uint64())
	l, err := changelog.Open(deadline(t), changelog.Options{Brokers: k.Bootstrap(localkafka.Plaintext), Cluster: cluster})
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
}

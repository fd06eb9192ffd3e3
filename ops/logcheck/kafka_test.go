package logcheck

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// TestOnApacheKafka checks a topic that a person created badly, as a user with every right and as one with none.
func TestOnApacheKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	root, nobody := localkafka.User{Name: "root", Password: "root-secret"}, localkafka.User{Name: "nobody", Password: "nobody-secret"}
	k := localkafka.ForTest(t, localkafka.Options{
		Listeners: []localkafka.Listener{localkafka.SASLTLS}, Users: []localkafka.User{root, nobody}, ACLs: true, SuperUsers: []string{root.Name},
	})
	admin := k.Admin()
	defer admin.Transport.(*kafka.Transport).CloseIdleConnections()
	res, err := admin.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: changelog.TopicName("bad"), NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
			{ConfigName: "cleanup.policy", ConfigValue: "compact"}, {ConfigName: "retention.ms", ConfigValue: "3600000"},
			{ConfigName: "max.message.bytes", ConfigValue: "100000"}, {ConfigName: "min.insync.replicas", ConfigValue: "2"},
		},
	}}})
	if err == nil {
		err = res.Errors[changelog.TopicName("bad")]
	}
	if err != nil {
		t.Fatal(err)
	}
	check := func(u localkafka.User, cluster string) map[string]Row {
		t.Helper()
		l, err := changelog.Open(ctx, changelog.Options{Brokers: k.Bootstrap(localkafka.SASLTLS), Cluster: cluster, Security: changelog.Security{
			TLS:  changelog.TLS{Enable: true, CAFile: k.Files().CA},
			SASL: changelog.SASL{Mechanism: changelog.SASLScramSHA256, User: u.Name, Password: changelog.Secret(u.Password)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return rows(t, l, Options{})
	}
	expect := func(got map[string]Row, check string, result Result, have string) {
		t.Helper()
		if r, ok := got[check]; !ok || r.Result != result || !strings.HasPrefix(r.Have, have) {
			t.Errorf("%s: %+v, want %s and %q", check, r, result, have)
		}
	}

	bad := check(root, "bad")
	expect(bad, "brokers", Warn, "1")
	expect(bad, "broker 1", OK, k.Addr(1, localkafka.SASLTLS))
	expect(bad, "protocol", OK, "Produce")
	expect(bad, "partitions", Fail, "2")
	expect(bad, "replication factor", Warn, "1")
	expect(bad, "in-sync replicas now", Fail, "1 (1)")
	expect(bad, "min.insync.replicas", Fail, "2")
	expect(bad, "cleanup.policy", Fail, "compact")
	expect(bad, "retention.ms", Warn, "1h0m0s")
	expect(bad, "retention.bytes", OK, "-1 (the brokers' default)")
	expect(bad, "max.message.bytes", Fail, "100000")
	expect(bad, "compression.type", OK, "producer")
	expect(bad, "unclean.leader.election.enable", OK, "false")
	expect(bad, "message.timestamp.type", OK, "CreateTime")
	expect(bad, "content", OK, "empty")
	for _, right := range []string{"Describe", "Read", "Write", "DescribeConfigs"} {
		expect(bad, "right: "+right, OK, "yes")
	}
	expect(check(root, "absent"), "topic", Fail, "drover.absent.log: none")
	expect(check(nobody, "bad"), "topic", Fail, "drover.bad.log: no right to see it")
}

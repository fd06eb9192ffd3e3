package changelog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	// DefaultMaxMessageBytes is the max.message.bytes that Ensure creates the
	// topic with: room for several frames in one compressed record batch.
	DefaultMaxMessageBytes = 4 << 20
	// DefaultRetention is Kafka's own.
	DefaultRetention = 7 * 24 * time.Hour

	// MinMessageBytes is the least max.message.bytes with which every frame fits.
	MinMessageBytes = MaxPayload + FrameOverhead + requestOverhead + recordOverhead

	// kafkaMaxMessageBytes is what a topic has that nobody configured.
	kafkaMaxMessageBytes = 1_048_588
	// kafkaSegmentBytes is Kafka's own segment.bytes.
	kafkaSegmentBytes = 1 << 30
)

// TopicSpec is how the topic should be. The zero value is the design's.
type TopicSpec struct {
	Retention         time.Duration // 0: DefaultRetention; below 0: for ever
	MaxMessageBytes   int           // 0: DefaultMaxMessageBytes
	ReplicationFactor int           // 0: 3, or the number of brokers if there are fewer
}

// Finding is something about the topic that does not fit.
type Finding struct {
	// Fatal says that the change log cannot be kept on such a topic; otherwise
	// it works but promises less.
	Fatal   bool   `json:"fatal"`
	Setting string `json:"setting"`
	Have    string `json:"have"`
	Want    string `json:"want"`
	Fix     string `json:"fix"` // a command, or what to do
}

// String returns the finding as one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s is %s, should be %s: %s", f.Setting, f.Have, f.Want, f.Fix)
}

func (s *TopicSpec) defaults(brokers int) {
	if s.Retention == 0 {
		s.Retention = DefaultRetention
	}
	if s.MaxMessageBytes == 0 {
		s.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if s.ReplicationFactor == 0 {
		s.ReplicationFactor = min(3, max(1, brokers))
	}
}

func (s *TopicSpec) minISR() int {
	if s.ReplicationFactor >= 3 {
		return 2
	}
	return 1
}

func (s *TopicSpec) retentionMillis() int64 {
	if s.Retention < 0 {
		return -1
	}
	return s.Retention.Milliseconds()
}

// Ensure creates the topic as the design requires, or checks the one that is
// there and returns what does not fit. It changes nothing on an existing topic.
func (l *Log) Ensure(ctx context.Context, spec TopicSpec) (created bool, findings []Finding, err error) {
	err = l.retry(ctx, "create or check the topic", func(ctx context.Context) error {
		created, findings, err = l.ensureOnce(ctx, spec)
		return err
	})
	return created, findings, err
}

func (l *Log) ensureOnce(ctx context.Context, spec TopicSpec) (bool, []Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	meta, err := l.metadata(ctx)
	if err != nil {
		return false, nil, err
	}
	spec.defaults(len(meta.Brokers))
	topic, err := topicOf(meta, l.topic)
	if classify(err) == classNoTopic && err != nil {
		switch err := l.create(ctx, spec); {
		case err == nil:
			l.log.Info("created the topic", "replication", spec.ReplicationFactor, "retention", spec.Retention)
			return true, nil, l.usable(ctx)
		case !errors.Is(err, kafka.TopicAlreadyExists):
			return false, nil, err
		}
		if meta, err = l.metadata(ctx); err != nil {
			return false, nil, err
		}
		topic, err = topicOf(meta, l.topic)
	}
	if err != nil {
		return false, nil, err
	}
	findings, err := l.findings(ctx, spec, topic)
	if err != nil {
		return false, nil, err
	}
	return false, findings, checkPurpose(ctx, logPages{l})
}

// checkPurpose looks at some messages of the topic's beginning and end: they must
// be frames, and of this cluster.
func checkPurpose(ctx context.Context, p pages) error {
	first, next, err := p.bounds(ctx)
	if err != nil || first == next {
		return err
	}
	frames, bad := 0, error(nil)
	for _, at := range []int64{first, max(first, next-8)} {
		entries, err := p.page(ctx, at, probeBytes)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Err != nil {
				bad = e.Err
				continue
			}
			frames++
			if err := (&tailScan{}).add(p.cluster(), e); err != nil {
				return err
			}
		}
	}
	if frames == 0 && bad != nil {
		return fmt.Errorf("%w: the topic's messages were not written by Drover (%w); choose another --cluster name", ErrWrongCluster, bad)
	}
	return nil
}

// metadata asks the brokers, not kafka-go's cache.
func (l *Log) metadata(ctx context.Context) (*kafka.MetadataResponse, error) {
	l.transport.CloseIdleConnections()
	return l.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{l.topic}})
}

func topicOf(meta *kafka.MetadataResponse, name string) (kafka.Topic, error) {
	for _, t := range meta.Topics {
		if t.Name == name {
			return t, t.Error
		}
	}
	return kafka.Topic{}, kafka.UnknownTopicOrPartition
}

func (l *Log) create(ctx context.Context, spec TopicSpec) error {
	entries := []kafka.ConfigEntry{
		{ConfigName: "cleanup.policy", ConfigValue: "delete"},
		{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(spec.minISR())},
		{ConfigName: "unclean.leader.election.enable", ConfigValue: "false"},
		{ConfigName: "retention.ms", ConfigValue: strconv.FormatInt(spec.retentionMillis(), 10)},
		{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(spec.MaxMessageBytes)},
	}
	res, err := l.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: l.topic, NumPartitions: 1, ReplicationFactor: spec.ReplicationFactor, ConfigEntries: entries,
	}}})
	if err != nil {
		return err
	}
	return res.Errors[l.topic]
}

// usable waits until the partition has a leader.
func (l *Log) usable(ctx context.Context) error {
	for b := newBackoff(); ; l.refresh() {
		_, _, err := l.boundsOnce(ctx)
		if err == nil {
			return nil
		}
		if c := classify(err); c == classFatal || !b.wait(ctx) {
			return err
		}
	}
}

// config reads the topic's settings by name.
func (l *Log) config(ctx context.Context, names ...string) (map[string]string, error) {
	res, err := l.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: l.topic, ConfigNames: names}},
	})
	if err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, r.Error
		}
		for _, e := range r.ConfigEntries {
			values[e.ConfigName] = e.ConfigValue
		}
	}
	return values, nil
}

// maxMessageBytes returns the largest record batch that the topic takes, bounded
// by what is worth sending at once. Without the right to ask, Kafka's default.
func (l *Log) maxMessageBytes(ctx context.Context) (limit int, err error) {
	err = l.retry(ctx, "read the topic's settings", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, adminTimeout)
		defer cancel()
		values, err := l.config(ctx, "max.message.bytes")
		if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.ClusterAuthorizationFailed) {
			l.log.Info("may not read the topic's settings; assuming Kafka's default max.message.bytes", "bytes", kafkaMaxMessageBytes)
			limit = kafkaMaxMessageBytes
			return nil
		}
		if err != nil {
			return err
		}
		if limit, err = strconv.Atoi(values["max.message.bytes"]); err != nil {
			limit = kafkaMaxMessageBytes
		}
		return nil
	})
	return min(limit, DefaultMaxMessageBytes), err
}

func (l *Log) findings(ctx context.Context, spec TopicSpec, t kafka.Topic) ([]Finding, error) {
	values, err := l.config(ctx, "cleanup.policy", "min.insync.replicas", "unclean.leader.election.enable", "retention.ms", "max.message.bytes")
	if err != nil {
		return nil, err
	}
	var found []Finding
	add := func(fatal bool, setting, have, want, fix string) {
		found = append(found, Finding{Fatal: fatal, Setting: setting, Have: have, Want: want, Fix: fix})
	}
	alter := func(setting, want string) string {
		return fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", l.topic, setting, want)
	}
	if n := len(t.Partitions); n != 1 {
		add(true, "partitions", strconv.Itoa(n), "1", "partitions cannot be taken away: delete the topic, or choose another --cluster name")
	}
	for _, p := range t.Partitions {
		if n := len(p.Replicas); n < spec.ReplicationFactor {
			add(false, "replication factor", strconv.Itoa(n), strconv.Itoa(spec.ReplicationFactor), "kafka-reassign-partitions.sh: one broker's disk can lose the change log now")
		}
	}
	if have := values["cleanup.policy"]; have != "delete" {
		add(true, "cleanup.policy", have, "delete", "compaction would take frames out of the middle: "+alter("cleanup.policy", "delete"))
	}
	if have, want := values["min.insync.replicas"], spec.minISR(); number(have) < int64(want) {
		add(false, "min.insync.replicas", have, strconv.Itoa(want), alter("min.insync.replicas", strconv.Itoa(want)))
	}
	if have := values["unclean.leader.election.enable"]; have != "" && have != "false" {
		add(false, "unclean.leader.election.enable", have, "false", "acknowledged frames could be lost: "+alter("unclean.leader.election.enable", "false"))
	}
	if have, want := values["max.message.bytes"], MinMessageBytes; number(have) < int64(want) {
		add(true, "max.message.bytes", have, "at least "+strconv.Itoa(want), alter("max.message.bytes", strconv.Itoa(spec.MaxMessageBytes)))
	}
	if have, want := values["retention.ms"], spec.retentionMillis(); number(have) != -1 && (want == -1 || number(have) < want) {
		add(false, "retention.ms", have, strconv.FormatInt(want, 10), alter("retention.ms", strconv.FormatInt(want, 10)))
	}
	return found, nil
}

// number reads a setting; what cannot be read counts as missing and too small.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -2
	}
	return n
}

package rig

import (
	"context"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
)

// The functions of this file talk to Kafka through franz-go, so that topics are read and written by other code than the
// one that is tested.

func (c *Cluster) topic() string { return changelog.TopicName(c.Name) }

// ReadTopic reads the messages that the topic holds, byte for byte.
func (c *Cluster) ReadTopic(t *testing.T) (messages [][]byte) {
	t.Helper()
	first, next, err := c.OpenLog(t).Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := Must(kgo.NewClient(kgo.SeedBrokers(c.Brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.topic(): {0: kgo.NewOffset().At(first)}})))(t)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for first+int64(len(messages)) < next {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { messages = append(messages, r.Value) })
	}
	return messages
}

// WriteTopic writes messages behind the topic's end, and makes the topic if there is none.
func (c *Cluster) WriteTopic(t *testing.T, messages ...[]byte) {
	t.Helper()
	if _, _, err := c.OpenLog(t).Ensure(t.Context(), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	client := Must(kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(changelog.DefaultMaxMessageBytes)))(t)
	defer client.Close()
	for _, message := range messages {
		record := &kgo.Record{Topic: c.topic(), Partition: 0, Value: message}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// Frame is a message of the topic.
func Frame(t *testing.T, message []byte) changelog.Frame {
	t.Helper()
	return Must(changelog.Decode(message))(t)
}

// Position is where the replica's database in a datadir stands, which nobody has open.
func Position(t *testing.T, datadir string) changelog.Position {
	t.Helper()
	db := Must(leveldb.OpenFile(harness.Chaindata(datadir), &opt.Options{ReadOnly: true, ErrorIfMissing: true}))(t)
	defer db.Close()
	return Must(changelog.UnmarshalPosition(Must(db.Get(changelog.PositionKey, nil))(t)))(t)
}

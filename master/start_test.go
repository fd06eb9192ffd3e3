package master

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
)

// A broker that is there and answers every question with "unknown server error", as one with a full disk does.
func TestBrokersThatNeverAnswerUsefullyEndTheStart(t *testing.T) {
	for name, key := range map[string]kmsg.Key{"to questions": kmsg.ListOffsets, "to the first frame": kmsg.Produce} {
		t.Run(name, func(t *testing.T) {
			b, err := broker.New(broker.Options{Listen: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			datadir := t.TempDir()
			var fired atomic.Int64
			b.Cluster().ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
				b.Cluster().KeepControl()
				fired.Add(1)
				return refusal(req), nil, true
			})
			opts := masterConfig{Broker: b.Addr(), Datadir: datadir, Geth: fake(datadir, "--batches=1")}.options()
			opts.StartTimeout = 2 * time.Second
			m, err := New(opts)
			if err != nil {
				t.Fatal(err)
			}
			assertErrorIs(t, oneLined{m.Run(testContext(t))}, changelog.ErrBrokersUnreachable, "geth was not started")
			if fired.Load() == 0 {
				t.Error("the fault did not fire")
			}
			if m.geth.get() != nil {
				t.Error("geth was started")
			}
		})
	}
}

// oneLined folds an error as cmd does.
type oneLined struct{ error }

func (e oneLined) Unwrap() error { return e.error }

func (e oneLined) Error() string {
	text := []byte(e.error.Error())
	for i, c := range text {
		if c == '\n' {
			text[i] = ' '
		}
	}
	return string(text)
}

// refusal is an answer with an unknown server error for everything that was asked.
func refusal(req kmsg.Request) kmsg.Response {
	code := kerr.UnknownServerError.Code
	switch req := req.(type) {
	case *kmsg.ListOffsetsRequest:
		res := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range req.Topics {
			answer := kmsg.NewListOffsetsResponseTopic()
			answer.Topic = topic.Topic
			for _, p := range topic.Partitions {
				partition := kmsg.NewListOffsetsResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, code
				answer.Partitions = append(answer.Partitions, partition)
			}
			res.Topics = append(res.Topics, answer)
		}
		return res
	case *kmsg.ProduceRequest:
		res := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range req.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, code
				answer.Partitions = append(answer.Partitions, partition)
			}
			res.Topics = append(res.Topics, answer)
		}
		return res
	}
	return req.ResponseKind()
}

package changelog

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// noReplica is what Kafka answers when the leader itself shall be read from.
const noReplica = -1

// fetchRequest is [fetch.Request] with a broker of our choice: kafka-go sends
// that one to the leader, always. kafka-go encodes fields by their index, so the
// first ten must stay as they are there; what follows is not sent.
type fetchRequest struct {
	ReplicaID       int32
	MaxWaitTime     int32
	MinBytes        int32
	MaxBytes        int32
	IsolationLevel  int8
	SessionID       int32
	SessionEpoch    int32
	Topics          []fetch.RequestTopic
	ForgottenTopics []fetch.RequestForgottenTopic
	RackID          string

	from int32 // broker id, or noReplica for the leader
}

// ApiKey implements [protocol.Message]; the name is kafka-go's.
func (*fetchRequest) ApiKey() protocol.ApiKey { return protocol.Fetch }

// Broker implements [protocol.BrokerMessage].
func (r *fetchRequest) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if r.from != noReplica {
		if b, ok := cluster.Brokers[r.from]; ok {
			return b, nil
		}
		return protocol.Broker{}, kafka.ReplicaNotAvailable
	}
	return (&fetch.Request{Topics: r.Topics}).Broker(cluster)
}

// readReplica is which broker a Log's readers were told to use.
type readReplica struct {
	broker int32 // noReplica: the leader
	until  time.Time
}

const (
	// replicaTTL is how long the nearest replica is kept before the leader is asked
	// again; the same as metadata.max.age.ms of Kafka's own client.
	replicaTTL = 5 * time.Minute
	// replicaRest is how long a replica that failed is left alone.
	replicaRest = 30 * time.Second
)

// nearest returns the broker to fetch from, and whether to ask the leader for one.
func (l *Log) nearest() (broker int32, ask bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().After(l.replica.until) {
		return noReplica, true
	}
	return l.replica.broker, false
}

func (l *Log) setNearest(broker int32, keep time.Duration) {
	l.mu.Lock()
	changed := l.replica.broker != broker
	l.replica = readReplica{broker: broker, until: time.Now().Add(keep)}
	l.mu.Unlock()
	switch {
	case !changed:
	case broker == noReplica:
		l.log.Info("reading from the leader", "rack", l.opts.Rack)
	default:
		l.log.Info("reading from the replica that is nearest to this rack", "rack", l.opts.Rack, "broker", broker)
	}
}

// fetchNear fetches from the replica of this rack. The leader names it (KIP-392)
// if the brokers have a broker.rack each and the replica.selector.class
// RackAwareReplicaSelector. Whatever the replica refuses, such as an offset that
// it does not have yet, the leader is asked instead, and for a while after.
func (l *Log) fetchNear(ctx context.Context, offset, maxBytes int64, wait time.Duration) (*fetch.ResponsePartition, error) {
	from, ask := l.nearest()
	if ask {
		p, err := l.fetchFrom(ctx, noReplica, l.opts.Rack, offset, maxBytes, wait)
		if err != nil || p.ErrorCode != 0 || p.PreferredReadReplica < 0 {
			return p, err
		}
		// The leader sends no records along with that answer.
		from = p.PreferredReadReplica
		l.setNearest(from, replicaTTL)
	}
	if from != noReplica {
		p, err := l.fetchFrom(ctx, from, l.opts.Rack, offset, maxBytes, wait)
		if err == nil && p.ErrorCode == 0 {
			return p, nil
		}
		l.setNearest(noReplica, replicaRest)
		if ctx.Err() != nil {
			return p, err
		}
	}
	return l.fetchFrom(ctx, noReplica, "", offset, maxBytes, wait)
}

func (l *Log) fetchFrom(ctx context.Context, from int32, rack string, offset, maxBytes int64, wait time.Duration) (*fetch.ResponsePartition, error) {
	m, err := l.transport.RoundTrip(ctx, l.addr, &fetchRequest{
		ReplicaID: -1, MaxWaitTime: int32(wait.Milliseconds()), MinBytes: 1, MaxBytes: int32(maxBytes),
		SessionID: 0, SessionEpoch: -1, RackID: rack, from: from,
		Topics: []fetch.RequestTopic{{Topic: l.topic, Partitions: []fetch.RequestPartition{{
			Partition: partition, CurrentLeaderEpoch: -1, FetchOffset: offset, LogStartOffset: -1, PartitionMaxBytes: int32(maxBytes),
		}}}},
	})
	if err != nil {
		return nil, err
	}
	res := m.(*fetch.Response)
	if res.ErrorCode != 0 {
		return nil, kafka.Error(res.ErrorCode)
	}
	if len(res.Topics) == 0 {
		return nil, protocol.ErrNoTopic
	}
	if len(res.Topics[0].Partitions) == 0 {
		return nil, protocol.ErrNoPartition
	}
	return &res.Topics[0].Partitions[0], nil
}

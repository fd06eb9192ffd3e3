package changelog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// Broker is one of the Kafka cluster's, as its metadata says.
type Broker struct {
	ID   int    `json:"id"`
	Addr string `json:"addr"`
	Rack string `json:"rack,omitempty"`
}

// Setting is the value of one of the topic's settings.
type Setting struct {
	Value string `json:"value"`
	// Default says that it was not set on the topic but is the brokers'.
	Default bool `json:"default"`
}

// APIRange are the versions of one request that a broker understands.
type APIRange struct{ Min, Max int }

// Description is what the brokers say about themselves and the topic to this
// user. A part that the user may not see is left empty, and its error says so.
type Description struct {
	ClusterID  string
	Controller int
	Brokers    []Broker
	APIs       map[string]APIRange // by the protocol's name: Produce, Fetch…

	TopicErr   error // [ErrNoTopic], [ErrForbidden], or nil
	Partitions []PartitionInfo
	Rights     Rights
	Settings   map[string]Setting
	// SettingsErr is why Settings is empty ([ErrForbidden]).
	SettingsErr error
}

// PartitionInfo is a partition of the topic; the ids are the brokers'.
type PartitionInfo struct {
	ID       int
	Leader   int // -1: none
	Replicas []int
	InSync   []int
}

// Rights are the operations on the topic that the user may do. Without an
// authorizer the brokers answer with all of them.
type Rights struct {
	Known bool // the brokers told (from Kafka 2.3 on, and with the Describe right)
	mask  int32
}

// Right is an operation on a topic, by the code that the protocol has for it.
type Right uint8

// The rights that Drover's roles need.
const (
	RightRead            Right = 3
	RightWrite           Right = 4
	RightCreate          Right = 5
	RightAlter           Right = 7
	RightDescribe        Right = 8
	RightDescribeConfigs Right = 10
	RightAlterConfigs    Right = 11
)

// String returns the right as kafka-acls.sh spells it.
func (r Right) String() string {
	return map[Right]string{
		RightRead: "Read", RightWrite: "Write", RightCreate: "Create", RightAlter: "Alter", RightDescribe: "Describe",
		RightDescribeConfigs: "DescribeConfigs", RightAlterConfigs: "AlterConfigs",
	}[r]
}

// Has reports whether the user has the right.
func (r Rights) Has(right Right) bool { return r.mask&(1<<right) != 0 }

// NewRights returns known rights; it is for tests of callers.
func NewRights(rights ...Right) Rights {
	r := Rights{Known: true}
	for _, one := range rights {
		r.mask |= 1 << one
	}
	return r
}

// rightsUnknown is what a broker answers that does not tell (KIP-430).
const rightsUnknown = -1 << 31

// Describe asks the brokers about themselves, the topic and the user's rights. It
// tries for some seconds at most. What the user may not see is no error of Describe.
func (l *Log) Describe(ctx context.Context) (Description, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var d Description
	err := l.retry(ctx, "describe the topic", func(ctx context.Context) error {
		var err error
		d, err = l.describeOnce(ctx)
		return err
	})
	return d, err
}

// Reach asks one broker by its address and returns how long the answer took, the
// sign-in included.
func (l *Log) Reach(ctx context.Context, addr string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	began := time.Now()
	_, err := l.client.ApiVersions(ctx, &kafka.ApiVersionsRequest{Addr: kafka.TCP(addr)})
	if err != nil && classify(err) == classFatal {
		err = l.explain("connect to "+addr, err)
	}
	return time.Since(began), err
}

func (l *Log) describeOnce(ctx context.Context) (Description, error) {
	meta, err := l.askMetadata(ctx)
	if err != nil {
		return Description{}, err
	}
	d := Description{ClusterID: meta.ClusterID, Controller: int(meta.ControllerID), APIs: make(map[string]APIRange)}
	for _, b := range meta.Brokers {
		d.Brokers = append(d.Brokers, Broker{ID: int(b.NodeID), Addr: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), Rack: b.Rack})
	}
	versions, err := l.client.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err != nil {
		return Description{}, err
	}
	for _, v := range versions.ApiKeys {
		d.APIs[v.ApiName] = APIRange{Min: v.MinVersion, Max: v.MaxVersion}
	}
	d.TopicErr = kafka.UnknownTopicOrPartition
	for _, t := range meta.Topics {
		if t.Name == l.topic {
			d.topic(t)
		}
	}
	switch classify(d.TopicErr) {
	case classNoTopic:
		d.TopicErr = fmt.Errorf("%w: no topic %s, or no right to see it", ErrNoTopic, l.topic)
	case classFatal:
		if forbids(d.TopicErr) {
			d.TopicErr = fmt.Errorf("%w: see topic %s", ErrForbidden, l.topic)
		}
	default:
		if d.TopicErr != nil {
			return d, d.TopicErr
		}
	}
	if d.TopicErr != nil {
		return d, nil
	}
	return d, l.settings(ctx, &d)
}

func (d *Description) topic(t metadata.ResponseTopic) {
	d.TopicErr = nil
	if t.ErrorCode != 0 {
		d.TopicErr = kafka.Error(t.ErrorCode)
		return
	}
	if t.TopicAuthorizedOperations != rightsUnknown {
		d.Rights = Rights{Known: true, mask: t.TopicAuthorizedOperations}
	}
	for _, p := range t.Partitions {
		d.Partitions = append(d.Partitions, PartitionInfo{
			ID: int(p.PartitionIndex), Leader: int(p.LeaderID), Replicas: ints(p.ReplicaNodes), InSync: ints(p.IsrNodes),
		})
	}
}

func ints(list []int32) []int {
	out := make([]int, len(list))
	for i, v := range list {
		out[i] = int(v)
	}
	return out
}

// settings reads all of the topic's settings.
func (l *Log) settings(ctx context.Context, d *Description) error {
	res, err := l.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: l.topic}},
	})
	if err != nil {
		return err
	}
	d.Settings = make(map[string]Setting)
	for _, r := range res.Resources {
		if forbids(r.Error) {
			d.SettingsErr = fmt.Errorf("%w: read the settings of topic %s", ErrForbidden, l.topic)
			return nil
		}
		if r.Error != nil {
			return r.Error
		}
		for _, e := range r.ConfigEntries {
			d.Settings[e.ConfigName] = Setting{Value: e.ConfigValue, Default: e.ConfigSource != topicSource}
		}
	}
	return nil
}

// topicSource is DescribeConfigs' code for a value set on the topic itself.
const topicSource = 1

func forbids(err error) bool {
	return errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.ClusterAuthorizationFailed)
}

// uncached is a metadata request that kafka-go does not answer from its memory,
// which holds no rights: it does so for *metadata.Request alone, and sends what a
// request splits into.
type uncached struct{ metadata.Request }

// Split implements [protocol.Splitter].
func (u *uncached) Split(protocol.Cluster) ([]protocol.Message, protocol.Merger, error) {
	return []protocol.Message{&u.Request}, u, nil
}

// Merge implements [protocol.Merger].
func (u *uncached) Merge(_ []protocol.Message, results []any) (protocol.Message, error) {
	for _, r := range results {
		switch r := r.(type) {
		case error:
			return nil, r
		case *metadata.Response:
			return &uncachedResponse{r}, nil
		}
	}
	return nil, errors.New("no metadata in the answer")
}

type uncachedResponse struct{ *metadata.Response }

// askMetadata asks a broker about the topic and the user's rights on it.
func (l *Log) askMetadata(ctx context.Context) (*metadata.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := l.transport.RoundTrip(ctx, l.addr, &uncached{metadata.Request{
		TopicNames: []string{l.topic}, IncludeTopicAuthorizedOperations: true,
	}})
	if err != nil {
		return nil, err
	}
	res, ok := m.(*uncachedResponse)
	if !ok {
		return nil, fmt.Errorf("metadata: unexpected answer %T", m)
	}
	return res.Response, nil
}

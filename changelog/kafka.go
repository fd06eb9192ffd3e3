package changelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

const (
	// partition is the only one: a change log is one order.
	partition = 0

	dialTimeout = 3 * time.Second
	// openTimeout is how long Open waits for a broker. A wrong address should
	// be told within seconds; a running Log waits for as long as it takes.
	openTimeout = 5 * time.Second
	// produceTimeout bounds one try, half of it is the broker's for acks=all. A
	// leader that hangs is left after it; Kafka elects another within some 9 s.
	produceTimeout = 10 * time.Second
	adminTimeout   = 10 * time.Second
	// metadataTTL bounds how long a moved leader goes unnoticed while nothing
	// fails; after a failure the metadata is asked for again at once.
	metadataTTL = 10 * time.Second
)

// Options say which change log to open and how to reach it.
type Options struct {
	Brokers  []string // host:port each; one that answers is enough
	Cluster  string   // see [CheckCluster]
	ClientID string   // shown in the brokers' logs and quotas; default "drover"
	Security Security // default: plaintext, no user
	// Rack is where this program runs, as the brokers' broker.rack names it. Then
	// readers fetch from the nearest replica, if the brokers have a
	// replica.selector.class. Everything else goes to the leader.
	Rack string

	// Dial replaces the TCP dialer; TLS is put on top of what it returns.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: none
}

var clusterName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckCluster says whether a cluster's name can be used: 1 to 63 of a-z, 0-9
// and '-', the first not '-'.
func CheckCluster(name string) error {
	if !clusterName.MatchString(name) {
		return fmt.Errorf("cluster name %q: use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit", name)
	}
	return nil
}

// TopicName returns the name of a cluster's topic, "drover.<cluster>.log".
func TopicName(cluster string) string { return "drover." + cluster + ".log" }

// Log is an open change log. Its methods may be called concurrently.
type Log struct {
	opts      Options
	topic     string
	addr      net.Addr
	log       *slog.Logger
	metrics   *metrics
	transport *kafka.Transport
	// client has no time limit of its own: each call sets one.
	client   *kafka.Client
	producer *kafka.Client
	stop     context.CancelFunc
	reads    func() // called at each fetch; tests count them

	mu        sync.Mutex
	refreshed time.Time
	replica   readReplica
}

// Open connects to the brokers. When none answers within a few seconds it fails
// with [ErrBrokersUnreachable]; it does not look at the topic.
func Open(ctx context.Context, o Options) (*Log, error) {
	if err := CheckCluster(o.Cluster); err != nil {
		return nil, err
	}
	brokers := make([]string, 0, len(o.Brokers))
	for _, b := range o.Brokers {
		b = strings.TrimSpace(b)
		if _, _, err := net.SplitHostPort(b); err != nil {
			return nil, fmt.Errorf("broker %q: want host:port: %w", b, err)
		}
		brokers = append(brokers, b)
	}
	if len(brokers) == 0 {
		return nil, errors.New("no Kafka brokers given: set --kafka.brokers to a list of host:port")
	}
	if err := o.Security.Check(); err != nil {
		return nil, err
	}
	o.Brokers = brokers
	if o.ClientID == "" {
		o.ClientID = "drover"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(context.Background())
	l := &Log{
		opts: o, topic: TopicName(o.Cluster), addr: kafka.TCP(brokers...), stop: stop, metrics: m,
		replica: readReplica{broker: noReplica},
		log:     o.Logger.With("topic", TopicName(o.Cluster)),
	}
	l.transport = l.newTransport(background)
	l.client = &kafka.Client{Addr: l.addr, Transport: l.transport}
	l.producer = &kafka.Client{Addr: l.addr, Transport: l.transport, Timeout: produceTimeout}
	if err := l.hello(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// newTransport is the only place that builds connections.
func (l *Log) newTransport(ctx context.Context) *kafka.Transport {
	tcp := dialFunc(l.opts.Dial)
	if tcp == nil {
		tcp = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	security := l.opts.Security
	if security.SASL.Mechanism == SASLPlain && !security.TLS.Enable {
		l.log.Warn("the Kafka password crosses the network in the clear: use --kafka.tls, or a SCRAM mechanism")
	}
	limit := dialTimeout
	if security.TLS.Enable {
		limit += handshakeTimeout
	}
	d := &dialer{tcp: tcp, tls: security.TLS, log: l.log}
	return &kafka.Transport{
		Dial: d.dial,
		SASL: newSigner(security.SASL, l.log),
		// kafka-go tries the brokers of the list one after the other within
		// this time; one that swallows packets must leave time for the rest.
		DialTimeout:    time.Duration(len(l.opts.Brokers))*limit + time.Second,
		IdleTimeout:    2 * time.Minute,
		MetadataTTL:    metadataTTL,
		MetadataTopics: []string{l.topic},
		ClientID:       l.opts.ClientID,
		Context:        ctx,
	}
}

func (l *Log) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var last error
	for b := newBackoff(); ; l.refresh() {
		_, err := l.client.Metadata(ctx, &kafka.MetadataRequest{})
		if err == nil {
			return nil
		}
		if classify(err) == classFatal && ctx.Err() == nil {
			return l.explain("connect to "+strings.Join(l.opts.Brokers, ", "), err)
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		if ctx.Err() != nil || !b.wait(ctx) {
			return l.unreachable(last)
		}
	}
}

// unreachable says why no broker could be used, as far as that can be told.
func (l *Log) unreachable(err error) error {
	hint := "check --kafka.brokers, that the broker runs, and the firewall"
	hungUp := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	switch {
	case isPassing(err):
		hint = "check the AWS credentials of this process"
	case hungUp && !l.opts.Security.TLS.Enable && l.opts.Security.SASL.Mechanism == "":
		hint = "a broker took the connection and closed it: it may want TLS (--kafka.tls) or a user (--kafka.sasl.mechanism)"
	case hungUp && !l.opts.Security.TLS.Enable:
		hint = "a broker took the connection and closed it: it may want TLS (--kafka.tls)"
	case hungUp && l.opts.Security.SASL.Mechanism == "":
		hint = "a broker took the connection and closed it: the port may not speak TLS, or want a client certificate (--kafka.tls.cert) or a user (--kafka.sasl.mechanism)"
	case hungUp:
		hint = "a broker took the connection and closed it: the port may not speak TLS, or want a client certificate (--kafka.tls.cert)"
	}
	return fmt.Errorf("%w: tried %s for %s: %w; %s", ErrBrokersUnreachable, strings.Join(l.opts.Brokers, ", "), openTimeout, err, hint)
}

// refresh drops idle connections and cached metadata, so that the next request
// finds out anew who leads the partition. kafka-go asks by itself only when its
// cache has aged.
func (l *Log) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.refreshed) > 50*time.Millisecond {
		l.refreshed = now
		l.transport.CloseIdleConnections()
	}
}

// Close ends all connections. Readers are closed by their own Close.
func (l *Log) Close() error {
	l.stop()
	l.transport.CloseIdleConnections()
	return nil
}

// Topic returns the topic's name.
func (l *Log) Topic() string { return l.topic }

// Cluster returns the cluster's name.
func (l *Log) Cluster() string { return l.opts.Cluster }

// Brokers returns the broker list as given.
func (l *Log) Brokers() []string { return l.opts.Brokers }

// Bounds returns the first retained offset and the offset that the next message
// gets; they are equal for an empty topic. Errors: [ErrNoTopic], or what
// [Log.retry] returns once ctx ends.
func (l *Log) Bounds(ctx context.Context) (first, next int64, err error) {
	err = l.retry(ctx, "ask for the topic's offsets", func(ctx context.Context) error {
		first, next, err = l.boundsOnce(ctx)
		return err
	})
	return first, next, err
}

func (l *Log) boundsOnce(ctx context.Context) (first, next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	res, err := l.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{l.topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)}},
	})
	if err != nil {
		return 0, 0, err
	}
	for _, p := range res.Topics[l.topic] {
		if p.Partition != partition {
			continue
		}
		if p.Error != nil {
			return 0, 0, p.Error
		}
		return p.FirstOffset, p.LastOffset, nil
	}
	return 0, 0, kafka.UnknownTopicOrPartition
}

// noTopicGrace is how long a topic may be absent before it counts as missing:
// right after its creation some brokers do not know it yet.
const noTopicGrace = 3 * time.Second

// retry calls f until it succeeds, fails for good, or ctx ends. Outages are
// logged once each. A topic that stays absent ends it with [ErrNoTopic].
func (l *Log) retry(ctx context.Context, what string, f func(context.Context) error) error {
	out := outage{log: l.log, metrics: l.metrics, what: what}
	defer out.end(false)
	for b := newBackoff(); ; {
		err := f(ctx)
		if err == nil {
			out.end(true)
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, errors.Join(context.Cause(ctx), out.last))
		}
		if final := l.final(&out, what, err); final != nil {
			return final
		}
		l.refresh()
		if !b.wait(ctx) {
			return fmt.Errorf("%s: %w", what, errors.Join(context.Cause(ctx), err))
		}
	}
}

// final decides whether err ends a loop of tries; if so it returns what the
// caller shall see.
func (l *Log) final(out *outage, what string, err error) error {
	switch classify(err) {
	case classRetry:
		out.begin(err)
		return nil
	case classNoTopic:
		out.begin(err)
		return l.absent(out, what, err)
	case classUnreadable:
		out.begin(err)
		if out.unreadable++; out.unreadable < unreadableTries {
			return nil
		}
		return fmt.Errorf("%s: %w: the brokers' answer cannot be read: %w", what, ErrCorrupt, err)
	default:
		return l.explain(what, err)
	}
}

// absent decides what it means that kafka-go knows no such topic. Its layout of the cluster is also empty while no
// broker answers, so the brokers themselves are asked: only their word, for noTopicGrace, makes a topic absent.
func (l *Log) absent(out *outage, what string, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	meta, asking := l.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{l.topic}})
	if asking == nil {
		_, asking = topicOf(meta, l.topic)
	}
	switch {
	case errors.Is(asking, kafka.TopicAuthorizationFailed):
		// kafka-go leaves a topic that is hidden from the user out of its layout.
		return l.explain(what, kafka.TopicAuthorizationFailed)
	case asking == nil, classify(asking) != classNoTopic:
		out.absentSince = time.Time{} // it is there, or nobody knows
		return nil
	case out.absentSince.IsZero():
		out.absentSince = time.Now()
		return nil
	case time.Since(out.absentSince) < noTopicGrace:
		return nil
	}
	return l.explain(what, err)
}

// message is a record of the topic, copied out of the answer.
type message struct {
	offset int64
	time   time.Time
	value  []byte
}

// answer is what one fetch brought.
type answer struct {
	messages  []message
	next      int64 // behind the last record of the answer, control records included; the asked offset if there was none
	highWater int64
	logStart  int64
	bytes     int
}

// fetchOnce asks the leader for messages from offset on, or, with near, the
// replica of this rack. It waits up to wait for the first one; Kafka answers with
// at least one whole record batch, whatever maxBytes says.
func (l *Log) fetchOnce(ctx context.Context, offset int64, maxBytes int64, wait time.Duration, near bool) (answer, error) {
	if l.reads != nil {
		l.reads()
	}
	ctx, cancel := context.WithTimeout(ctx, wait+adminTimeout)
	defer cancel()
	var res *fetch.ResponsePartition
	var err error
	if near && l.opts.Rack != "" {
		res, err = l.fetchNear(ctx, offset, maxBytes, wait)
	} else {
		res, err = l.fetchFrom(ctx, noReplica, "", offset, maxBytes, wait)
	}
	if err != nil {
		return answer{}, err
	}
	if res.ErrorCode != 0 {
		return answer{}, kafka.Error(res.ErrorCode)
	}
	a := answer{next: offset, highWater: res.HighWatermark, logStart: res.LogStartOffset}
	batches := []kafka.RecordReader{res.RecordSet.Records}
	switch s := res.RecordSet.Records.(type) {
	case nil:
		batches = nil
	case *protocol.RecordStream:
		batches = s.Records
	}
	for _, b := range batches {
		if err := a.take(b, offset); err != nil {
			return answer{}, err
		}
	}
	return a, nil
}

// take copies the records from offset on out of one record batch and releases
// kafka-go's pages.
func (a *answer) take(batch kafka.RecordReader, offset int64) error {
	_, control := batch.(*protocol.ControlBatch)
	for {
		r, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		wanted := !control && r.Offset >= offset
		var value []byte
		if r.Key != nil {
			r.Key.Close()
		}
		if r.Value != nil {
			if wanted {
				value, err = protocol.ReadAll(r.Value)
			}
			r.Value.Close()
			if err != nil {
				return err
			}
		}
		a.next = max(a.next, r.Offset+1)
		if wanted {
			a.bytes += len(value)
			a.messages = append(a.messages, message{offset: r.Offset, time: r.Time, value: value})
		}
	}
}

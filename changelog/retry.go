package changelog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// class is what an error of kafka-go means for the one who sent the request.
type class uint8

const (
	classRetry      class = iota // the same request can succeed later
	classNoTopic                 // the topic is absent, or not yet known to this broker
	classUnreadable              // an answer came that kafka-go cannot decode
	classFatal                   // a person has to change something
)

// unreadableTries is how often an answer that cannot be decoded is asked for
// again: the bytes may have been damaged on the way, or on the broker's disk.
const unreadableTries = 5

// classify is the one place that decides what is tried again.
func classify(err error) class {
	var k kafka.Error
	var n net.Error
	switch {
	case isOwn(err):
		return classFatal
	case isPassing(err):
		return classRetry
	case errors.As(err, new(*authError)), errors.Is(err, errSpeaksTLS):
		return classFatal
	case errors.As(err, &k):
		return classifyCode(k)
	case errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition):
		return classNoTopic
	case errors.Is(err, protocol.ErrNoLeader):
		return classRetry
	case isTLS(err):
		return classFatal
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &n),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return classRetry
	default:
		return classUnreadable
	}
}

func classifyCode(k kafka.Error) class {
	switch k {
	case kafka.UnknownTopicOrPartition, kafka.UnknownTopicID:
		return classNoTopic
	case kafka.InvalidMessage:
		// Damaged on the way, which mends itself, or on the broker's disk.
		return classUnreadable
	case kafka.Unknown, kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.StaleControllerEpoch:
		return classRetry
	}
	if k.Temporary() {
		return classRetry
	}
	return classFatal
}

// isOwn finds verdicts that this package has already come to.
func isOwn(err error) bool {
	for _, own := range []error{ErrWrongCluster, ErrNoTopic, ErrNotRetained, ErrTruncated, ErrCorrupt, ErrBadFrame, ErrFutureVersion, ErrClosed, ErrConfiguration, ErrExpired} {
		if errors.Is(err, own) {
			return true
		}
	}
	return false
}

// isTLS finds the failures of a handshake that no retry mends.
func isTLS(err error) bool { return tlsHint(err) != "" }

// tlsHint says what to do about one of them, "" for other errors.
func tlsHint(err error) string {
	var (
		invalid x509.CertificateInvalidError
		remote  *net.OpError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the broker's certificate is not valid now: renew it there, or correct this machine's clock"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "the broker's certificate was signed by a CA that is not trusted here: name its certificate with --kafka.tls.ca"
	case errors.As(err, new(x509.HostnameError)):
		return "the broker's certificate is for another name: connect by a name that it holds, or set --kafka.tls.server-name"
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, &invalid):
		return "the broker's certificate is not accepted: check it, and --kafka.tls.ca"
	case errors.As(err, new(tls.RecordHeaderError)):
		return "the listener does not speak TLS: leave out --kafka.tls, or connect to its TLS port"
	case errors.As(err, &remote) && remote.Op == "remote error", errors.As(err, new(tls.AlertError)):
		// Go's own type for alerts over TCP is not exported; OpError.Op tells them.
		return "the broker ended the TLS session: it wants a client certificate (--kafka.tls.cert, --kafka.tls.key) that is valid and of a CA that it trusts"
	}
	return ""
}

// explain turns a final error into one line that says what to change.
func (l *Log) explain(what string, err error) error {
	var k kafka.Error
	errors.As(err, &k)
	hint := ""
	switch {
	case isOwn(err):
		return err
	case classify(err) == classNoTopic:
		return fmt.Errorf("%s: %w: no topic %s, or no right to see it (Describe); `drover master --cluster %s` creates it, or: kafka-topics.sh --create --topic %s --partitions 1 --config cleanup.policy=delete --config max.message.bytes=%d --config unclean.leader.election.enable=false",
			what, ErrNoTopic, l.topic, l.opts.Cluster, l.topic, DefaultMaxMessageBytes)
	case k == kafka.RecordListTooLarge:
		// A request's record batch has to fit into one segment of the topic.
		hint = fmt.Sprintf("the topic's segment.bytes is too small for one record batch; raise it to Kafka's default: kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config segment.bytes=%d",
			l.topic, kafkaSegmentBytes)
	case k == kafka.MessageSizeTooLarge:
		hint = fmt.Sprintf("the topic's max.message.bytes is too small; raise it to %d: kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config max.message.bytes=%d",
			DefaultMaxMessageBytes, l.topic, DefaultMaxMessageBytes)
	case k == kafka.TopicAuthorizationFailed, k == kafka.ClusterAuthorizationFailed:
		hint = fmt.Sprintf("grant the user Read, Write, Describe, DescribeConfigs and Create on topic %s (a replica: Read and Describe)", l.topic)
	case errors.As(err, new(*authError)), k == kafka.SASLAuthenticationFailed:
		hint = "check user and password"
		if l.opts.Security.SASL.Mechanism == SASLAWSMSKIAM {
			hint = "check the AWS credentials of this process, --kafka.aws.region, and that the role may kafka-cluster:Connect"
		}
	case k == kafka.UnsupportedSASLMechanism:
		hint = "the listener offers other mechanisms than " + string(l.opts.Security.SASL.Mechanism) + ": check --kafka.sasl.mechanism and the port"
	case k == kafka.IllegalSASLState:
		hint = "the listener wants no user, or another sign-in: check the port and --kafka.sasl.mechanism"
	case errors.Is(err, errSpeaksTLS):
		hint = "add --kafka.tls, or connect to a plaintext port"
	case isTLS(err):
		hint = tlsHint(err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %s", what, err, hint)
}

// backoff waits between tries, from 50 ms doubling to 2 s, with jitter.
type backoff struct{ delay time.Duration }

func newBackoff() *backoff { return &backoff{delay: 50 * time.Millisecond} }

// wait returns false when ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	d := b.delay/2 + rand.N(b.delay/2+1)
	b.delay = min(2*b.delay, 2*time.Second)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outage logs once when it begins and once when it ends.
type outage struct {
	log        *slog.Logger
	metrics    *metrics
	what       string
	since      time.Time // zero: none
	last       error
	tries      int
	unreadable int
	// absentSince is when the brokers first said that the topic is absent; zero when they do not say so.
	absentSince time.Time
}

func (o *outage) begin(err error) {
	o.tries++
	o.last = err
	if !o.since.IsZero() {
		return
	}
	o.since = time.Now()
	o.metrics.outages.Inc()
	o.metrics.inOutage.Inc()
	o.log.Warn("Kafka does not answer as it should; trying on", "doing", o.what, "err", err)
}

// end closes the outage, if there is one; ok says that the work then succeeded.
func (o *outage) end(ok bool) {
	if o.since.IsZero() {
		return
	}
	o.metrics.inOutage.Dec()
	if ok {
		o.log.Info("Kafka answers again", "doing", o.what, "after", time.Since(o.since).Round(time.Millisecond), "tries", o.tries)
	}
	o.since, o.last, o.tries, o.unreadable, o.absentSince = time.Time{}, nil, 0, 0, time.Time{}
}

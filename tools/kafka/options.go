package localkafka

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"time"
)

// A Listener is one way in which clients reach the brokers; each broker has a port for each.
type Listener string

// The listeners that a cluster can have.
const (
	// Plaintext has neither encryption nor identity: with ACLs, its clients are User:ANONYMOUS.
	Plaintext Listener = "PLAINTEXT"
	// TLS shows a certificate of the cluster's CA for 127.0.0.1 and localhost, and asks for none.
	TLS Listener = "TLS"
	// MutualTLS also wants a client certificate of the CA; its common name is the user.
	MutualTLS Listener = "MTLS"
	// ExpiredTLS shows a certificate that ended yesterday: clients must refuse it.
	ExpiredTLS Listener = "EXPIREDTLS"
	// SASLTLS is TLS with a user's name and password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	SASLTLS Listener = "SASLTLS"
)

var listeners = []Listener{Plaintext, TLS, MutualTLS, ExpiredTLS, SASLTLS}

func (l Listener) protocol() string {
	switch l {
	case Plaintext:
		return "PLAINTEXT"
	case SASLTLS:
		return "SASL_SSL"
	default:
		return "SSL"
	}
}

// A User can sign in at SASLTLS with each of the three mechanisms.
type User struct {
	Name     string
	Password string
}

// DefaultUser is the user of a cluster whose Options name none.
var DefaultUser = User{Name: "drover", Password: "drover-secret"}

// Options says what a cluster is made of. The zero value is one broker with a plaintext listener in a directory of
// its own, which Close removes.
type Options struct {
	// Brokers is 1 (the default) or 3. Each is also a controller.
	Brokers int
	// Dir keeps data, certificates and logs and is left behind by Close. A later cluster in the same Dir, with the same
	// brokers and listeners, goes on with the data on the same ports. "" = a temporary directory.
	Dir string
	// Listeners are those that clients can use; default Plaintext. Brokers talk to each other on listeners of their own.
	Listeners []Listener
	// FirstPort is the port of the first broker's first listener, and the ports that follow serve the rest.
	// 0 = free ones.
	FirstPort int
	// Users are known to SASLTLS; default DefaultUser.
	Users []User
	// ACLs turns the StandardAuthorizer on: nobody but SuperUsers may do anything before an ACL allows it.
	ACLs bool
	// SuperUsers are user names (a common name for MutualTLS, ANONYMOUS for Plaintext) that ACLs do not hold back.
	SuperUsers []string
	// Properties are added to server.properties of each broker and win over what the package sets.
	// FastRetention is one such set.
	Properties map[string]string
	// HeapMB is each broker's largest Java heap in MiB; default 256.
	HeapMB int
	// JVMFlags come last on the Java command line. The package's own make the start quick and the JVM small, at the
	// cost of peak speed: "-XX:TieredStopAtLevel=4" and "-XX:+UseParallelGC" give it back for a benchmark.
	JVMFlags []string
	// StartTimeout ends Start, Restart and WaitReady; default 60 s.
	StartTimeout time.Duration
	// Cache is where Apache Kafka is kept; default DefaultCache.
	Cache string
	// Logger is told what is done to the brokers; default: nobody.
	Logger *slog.Logger
}

// FastRetention are Properties with which segments past a topic's retention go within about a second. Apache Kafka
// allows no segment smaller than 1 MiB (segment.bytes).
func FastRetention() map[string]string {
	return map[string]string{
		"log.initial.task.delay.ms":       "200",
		"log.retention.check.interval.ms": "200",
		"log.segment.delete.delay.ms":     "100",
	}
}

// Names and passwords go into a JAAS line and onto a command line, neither of which needs to be tested here.
var safeText = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func (o Options) withDefaults() (Options, error) {
	if o.Brokers == 0 {
		o.Brokers = 1
	}
	if o.Brokers != 1 && o.Brokers != 3 {
		return o, fmt.Errorf("%d brokers: a local cluster has 1 or 3", o.Brokers)
	}
	if len(o.Listeners) == 0 {
		o.Listeners = []Listener{Plaintext}
	}
	for i, l := range o.Listeners {
		if !slices.Contains(listeners, l) || slices.Contains(o.Listeners[:i], l) {
			return o, fmt.Errorf("listener %q: known are %v, each once", l, listeners)
		}
	}
	if len(o.Users) == 0 {
		o.Users = []User{DefaultUser}
	}
	for _, u := range o.Users {
		if !safeText.MatchString(u.Name) || !safeText.MatchString(u.Password) {
			return o, fmt.Errorf("user %q: name and password are letters, digits and ._- only", u.Name)
		}
	}
	if o.HeapMB == 0 {
		o.HeapMB = 256
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 60 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

package changelog_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
	"github.com/segmentio/kafka-go"
)

func as(k *localkafka.Cluster, u localkafka.User) changelog.Security {
	return changelog.Security{
		TLS:  changelog.TLS{Enable: true, CAFile: k.Files().CA},
		SASL: changelog.SASL{Mechanism: changelog.SASLScramSHA512, User: u.Name, Password: changelog.Secret(u.Password)},
	}
}

func openAs(t testing.TB, k *localkafka.Cluster, cluster string, u localkafka.User) *changelog.Log {
	t.Helper()
	l, err := changelog.Open(deadline(t), changelog.Options{Brokers: k.Bootstrap(localkafka.SASLTLS), Cluster: cluster, Security: as(k, u)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func secretFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// testWaysIn publishes and reads through each kind of connection.
func testWaysIn(t *testing.T, k *localkafka.Cluster) {
	files := k.Files()
	tls := changelog.TLS{Enable: true, CAFile: files.CA}
	mutual := tls
	mutual.CertFile, mutual.KeyFile = files.ClientCert, files.ClientKey
	named := tls
	named.ServerName = "localhost"
	file := secretFile(t, userAll.Password+"\n")
	sasl := func(m changelog.SASLMechanism) changelog.Security {
		return changelog.Security{TLS: tls, SASL: changelog.SASL{Mechanism: m, User: userAll.Name, PasswordFile: file}}
	}
	for name, way := range map[string]struct {
		listener localkafka.Listener
		security changelog.Security
	}{
		"tls":             {localkafka.TLS, changelog.Security{TLS: tls}},
		"tls-server-name": {localkafka.TLS, changelog.Security{TLS: named}},
		"mutual-tls":      {localkafka.MutualTLS, changelog.Security{TLS: mutual}},
		"plain":           {localkafka.SASLTLS, sasl(changelog.SASLPlain)},
		"scram-sha-256":   {localkafka.SASLTLS, sasl(changelog.SASLScramSHA256)},
		"scram-sha-512":   {localkafka.SASLTLS, sasl(changelog.SASLScramSHA512)},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := "way-" + name
			l, err := changelog.Open(deadline(t), changelog.Options{Brokers: k.Bootstrap(way.listener), Cluster: cluster, Security: way.security})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
				t.Fatal(err)
			}
			frames, last := stream(1, 1, 50, 20_000, 0)
			publish(t, l, frames...)
			follow(t, l, changelog.Position{Cluster: cluster, Timeline: 1, Offset: -1}, 0, last)
		})
	}
}

// testClosedWays is fault 20: each ends soon, in one line that says what to do.
func testClosedWays(t *testing.T, k *localkafka.Cluster) {
	files := k.Files()
	tls := changelog.TLS{Enable: true, CAFile: files.CA}
	foreign := changelog.TLS{Enable: true, CAFile: files.OtherCA}
	system := changelog.TLS{Enable: true}
	named := changelog.TLS{Enable: true, CAFile: files.CA, ServerName: "kafka.example.org"}
	expired := changelog.TLS{Enable: true, CAFile: files.CA, CertFile: files.ExpiredCert, KeyFile: files.ExpiredKey}
	user := func(m changelog.SASLMechanism, name, password string) changelog.SASL {
		return changelog.SASL{Mechanism: m, User: name, Password: changelog.Secret(password)}
	}
	for name, way := range map[string]struct {
		listener localkafka.Listener
		security changelog.Security
		want     string
	}{
		"wrong password, PLAIN":                   {localkafka.SASLTLS, changelog.Security{TLS: tls, SASL: user("PLAIN", userAll.Name, "wrong")}, "check user and password"},
		"wrong password, SCRAM-SHA-256":           {localkafka.SASLTLS, changelog.Security{TLS: tls, SASL: user("SCRAM-SHA-256", userAll.Name, "wrong")}, "check user and password"},
		"wrong password, SCRAM-SHA-512":           {localkafka.SASLTLS, changelog.Security{TLS: tls, SASL: user("SCRAM-SHA-512", userAll.Name, "wrong")}, "check user and password"},
		"unknown user":                            {localkafka.SASLTLS, changelog.Security{TLS: tls, SASL: user("SCRAM-SHA-512", "stranger", "x")}, "check user and password"},
		"expired server certificate":              {localkafka.ExpiredTLS, changelog.Security{TLS: tls}, "renew it there"},
		"expired client certificate":              {localkafka.MutualTLS, changelog.Security{TLS: expired}, "ended at"},
		"no client certificate":                   {localkafka.MutualTLS, changelog.Security{TLS: tls}, "--kafka.tls.cert"},
		"foreign CA":                              {localkafka.TLS, changelog.Security{TLS: foreign}, "--kafka.tls.ca"},
		"system roots, private CA":                {localkafka.TLS, changelog.Security{TLS: system}, "--kafka.tls.ca"},
		"another server name":                     {localkafka.TLS, changelog.Security{TLS: named}, "--kafka.tls.server-name"},
		"plaintext to a TLS port":                 {localkafka.TLS, changelog.Security{}, "--kafka.tls"},
		"plaintext to a SASL over TLS port":       {localkafka.SASLTLS, changelog.Security{SASL: user("SCRAM-SHA-512", userAll.Name, userAll.Password)}, "--kafka.tls"},
		"TLS to a plaintext port":                 {localkafka.Plaintext, changelog.Security{TLS: tls}, "TLS"},
		"no user to a SASL port":                  {localkafka.SASLTLS, changelog.Security{TLS: tls}, "--kafka.sasl.mechanism"},
		"a user to a port without SASL":           {localkafka.TLS, changelog.Security{TLS: tls, SASL: user("PLAIN", userAll.Name, userAll.Password)}, "check the port and --kafka.sasl.mechanism"},
		"a mechanism that the port does not have": {localkafka.SASLTLS, changelog.Security{TLS: tls, SASL: changelog.SASL{Mechanism: "AWS_MSK_IAM", Region: "eu-west-1"}}, "other mechanisms"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := changelog.Open(deadline(t), changelog.Options{Brokers: k.Bootstrap(way.listener), Cluster: "closed", Security: way.security})
			if err == nil {
				l.Close()
				t.Fatal("got in")
			}
			if !strings.Contains(err.Error(), way.want) || strings.Contains(err.Error(), "\n") || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: want one line with %q", err, way.want)
			}
			t.Log(err)
		})
	}
}

// testRights gives users least privilege and takes away what they need.
func testRights(t *testing.T, k *localkafka.Cluster) {
	const cluster = "rights"
	ctx := deadline(t)

	// Without any right the topic, there or not, is refused at once.
	nobody := openAs(t, k, cluster, userNobody)
	if _, _, err := nobody.Ensure(ctx, changelog.TopicSpec{}); err == nil || !strings.Contains(err.Error(), "grant the user") {
		t.Errorf("creating without a right: %v", err)
	}
	// A master: prefix rights on everything that is the cluster's, nothing on the Kafka cluster.
	allowPrefix(t, k, userMaster.Name, "drover."+cluster+".", kafka.ACLOperationTypeCreate, kafka.ACLOperationTypeRead,
		kafka.ACLOperationTypeWrite, kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeDescribeConfigs)
	master := openAs(t, k, cluster, userMaster)
	until(t, func() error {
		_, findings, err := master.Ensure(ctx, changelog.TopicSpec{})
		if len(findings) != 0 {
			t.Fatal(findings)
		}
		return err
	})
	frames, last := stream(1, 1, 50, 3000, 0)
	publish(t, master, frames...)
	// Another cluster's topic is none of its business.
	other := openAs(t, k, "rights2", userMaster)
	if _, _, err := other.Ensure(ctx, changelog.TopicSpec{}); err == nil || !strings.Contains(err.Error(), "grant the user") {
		t.Errorf("another cluster's topic: %v", err)
	}

	began := time.Now()
	if _, _, err := nobody.Bounds(ctx); err == nil || !strings.Contains(err.Error(), "grant the user") {
		t.Errorf("reading without a right: %v", err)
	}
	r := nobody.NewReader(0)
	defer r.Close()
	if _, err := r.Next(ctx); err == nil || !strings.Contains(err.Error(), "grant the user") {
		t.Errorf("reading without a right: %v", err)
	}
	t.Logf("refusals took %s", time.Since(began))

	// A replica reads, and cannot write.
	allowPrefix(t, k, userReplica.Name, "drover."+cluster+".", kafka.ACLOperationTypeRead, kafka.ACLOperationTypeDescribe)
	replica := openAs(t, k, cluster, userReplica)
	until(t, func() error { _, _, err := replica.Bounds(ctx); return err })
	follow(t, replica, changelog.Position{Cluster: cluster, Timeline: 1, Offset: -1}, 0, last)
	if _, err := replica.NewPublisher(changelog.PublisherOptions{}).Publish(ctx, frames[:1]); err == nil || !strings.Contains(err.Error(), "grant the user") {
		t.Errorf("writing without a right: %v", err)
	}
	d, err := replica.Describe(ctx)
	if err != nil || d.TopicErr != nil {
		t.Fatalf("%+v, %v", d, err)
	}
	if !d.Rights.Known || !d.Rights.Has(changelog.RightRead) || !d.Rights.Has(changelog.RightDescribe) || d.Rights.Has(changelog.RightWrite) {
		t.Errorf("rights of a replica: %+v", d.Rights)
	}
	if !errors.Is(d.SettingsErr, changelog.ErrForbidden) {
		t.Errorf("settings without the right to see them: %v", d.SettingsErr)
	}
	if d, err := master.Describe(ctx); err != nil || !d.Rights.Has(changelog.RightWrite) || d.Settings["max.message.bytes"].Value != "4194304" ||
		len(d.Partitions) != 1 || len(d.Partitions[0].InSync) != 1 {
		t.Errorf("as master: %+v, %v", d, err)
	}
	if d, err := nobody.Describe(ctx); err != nil || !errors.Is(d.TopicErr, changelog.ErrForbidden) {
		t.Errorf("as nobody: %+v, %v", d, err)
	}
	if _, err := replica.Tail(ctx); err != nil {
		t.Error(err)
	}
}

// testExchangedPassword: a new connection takes what the file now says.
func testExchangedPassword(t *testing.T, k *localkafka.Cluster) {
	file := secretFile(t, userAll.Password)
	security := as(k, userAll)
	security.SASL.PasswordFile = file
	conns := newConnKiller()
	l, err := changelog.Open(deadline(t), changelog.Options{
		Brokers: k.Bootstrap(localkafka.SASLTLS), Cluster: "exchanged", Security: security, Dial: conns.dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	// While the file is away the last password goes on.
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	conns.kill()
	if _, _, err := l.Bounds(deadline(t)); err != nil {
		t.Errorf("file away: %v", err)
	}
	if err := os.WriteFile(file, []byte("no longer right"), 0o600); err != nil {
		t.Fatal(err)
	}
	conns.kill()
	if _, _, err := l.Bounds(deadline(t)); err == nil || !strings.Contains(err.Error(), "check user and password") {
		t.Errorf("file with another password: %v", err)
	}
}

// testTwoClusters: each has its own topic, and a reader of the wrong one refuses.
func testTwoClusters(t *testing.T, k *localkafka.Cluster) {
	ctx := deadline(t)
	for _, cluster := range []string{"mainnet", "sepolia"} {
		l := openAs(t, k, cluster, userAll)
		if _, _, err := l.Ensure(ctx, changelog.TopicSpec{}); err != nil {
			t.Fatal(err)
		}
		frames, last := stream(1, 1, 20, 300, 0)
		publish(t, l, changelog.StartFrame(1, changelog.TimelineStart{Cluster: cluster, Reason: changelog.ReasonInitial}, goldenTime))
		publish(t, l, append(frames, changelog.HeartbeatFrame(1, last, changelog.Heartbeat{Cluster: cluster}, goldenTime))...)
	}
	mainnet := openAs(t, k, "mainnet", userAll)
	// A replica whose database is sepolia's, on mainnet's topic.
	stranger := changelog.Position{Cluster: "sepolia", Timeline: 1, Sequence: 3, Offset: -1}
	if _, err := mainnet.Join(ctx, stranger); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("joining another cluster's topic: %v", err)
	}
	// Even one that reads from the start, without Join.
	if p, err := sequence(t, mainnet, changelog.Position{Cluster: "sepolia", Timeline: 1, Offset: -1}, 0, 5); !errors.Is(err, changelog.ErrWrongCluster) {
		t.Errorf("reading another cluster's topic: %v at %s", err, p)
	}
	if p, err := sequence(t, mainnet, changelog.Position{Cluster: "mainnet", Timeline: 1, Offset: -1}, 0, 5); err != nil {
		t.Errorf("reading the own topic: %v at %s", err, p)
	}
}

func allowPrefix(t testing.TB, k *localkafka.Cluster, user, prefix string, operations ...kafka.ACLOperationType) {
	t.Helper()
	admin := k.Admin()
	defer admin.Transport.(*kafka.Transport).CloseIdleConnections()
	var entries []kafka.ACLEntry
	for _, op := range operations {
		entries = append(entries, kafka.ACLEntry{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: prefix, ResourcePatternType: kafka.PatternTypePrefixed,
			Principal: "User:" + user, Host: "*", Operation: op, PermissionType: kafka.ACLPermissionTypeAllow,
		})
	}
	res, err := admin.CreateACLs(deadline(t), &kafka.CreateACLsRequest{ACLs: entries})
	if err == nil {
		err = errors.Join(res.Errors...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// until tries f until it succeeds: brokers learn of new rights a moment later.
func until(t testing.TB, f func() error) {
	t.Helper()
	ctx := deadline(t)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// connKiller ends all connections at once.
type connKiller struct{ conns chan net.Conn }

func newConnKiller() *connKiller { return &connKiller{conns: make(chan net.Conn, 1000)} }

func (k *connKiller) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		k.conns <- conn
	}
	return conn, err
}

func (k *connKiller) kill() {
	for {
		select {
		case c := <-k.conns:
			c.Close()
		default:
			return
		}
	}
}

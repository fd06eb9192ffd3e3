package localkafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

func scramAs(t *testing.T, algorithm scram.Algorithm, user, password string) sasl.Mechanism {
	t.Helper()
	m, err := scram.Mechanism(algorithm, user, password)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func trustOnly(t *testing.T, ca string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// knock asks the one broker for its list of brokers, which needs no rights.
func knock(ctx context.Context, addr string, config *tls.Config, mechanism sasl.Mechanism) error {
	ctx, cancel := context.WithTimeout(ctx, 4*askLimit)
	defer cancel()
	dialer := kafka.Dialer{TLS: config, SASLMechanism: mechanism}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	context.AfterFunc(ctx, func() { conn.Close() })
	_, err = conn.Brokers()
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // a refusal must be an answer, not silence
	}
	return err
}

func TestEachListenerLetsInWhoItShould(t *testing.T) {
	ctx := deadline(t)
	c := ForTest(t, Options{Listeners: listeners})
	files, user := c.Files(), c.Users()[0]
	trusting := trustOnly(t, files.CA)
	strangerCA := trustOnly(t, files.OtherCA)
	withCert := func(cert, key string) *tls.Config {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config := trusting.Clone()
		// Also when the server's hint would make Go hold an expired certificate back.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		return config
	}
	clientConfig, err := files.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	password := func(p string) map[string]sasl.Mechanism {
		return map[string]sasl.Mechanism{
			"PLAIN":         plain.Mechanism{Username: user.Name, Password: p},
			"SCRAM-SHA-256": scramAs(t, scram.SHA256, user.Name, p),
			"SCRAM-SHA-512": scramAs(t, scram.SHA512, user.Name, p),
		}
	}

	anyError := func(err error) bool { return err != nil && !errors.Is(err, context.DeadlineExceeded) }
	unknownCA := func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) }
	expired := func(err error) bool {
		var invalid x509.CertificateInvalidError
		return errors.As(err, &invalid) && invalid.Reason == x509.Expired
	}
	refusedSASL := func(err error) bool { return errors.Is(err, kafka.SASLAuthenticationFailed) }
	alert := func(err error) bool { return errors.As(err, new(tls.AlertError)) || anyError(err) }
	good := func(err error) bool { return err == nil }

	type attempt struct {
		name      string
		listener  Listener
		config    *tls.Config
		mechanism sasl.Mechanism
		want      func(error) bool
	}
	attempts := []attempt{
		{"plaintext", Plaintext, nil, nil, good},
		{"TLS", TLS, trusting, nil, good},
		{"TLS with a client certificate that nobody asked for", TLS, clientConfig, nil, good},
		{"TLS of a CA that is not trusted", TLS, strangerCA, nil, unknownCA},
		{"plaintext at a TLS port", TLS, nil, nil, anyError},
		{"TLS at a plaintext port", Plaintext, trusting, nil, anyError},
		{"mutual TLS", MutualTLS, clientConfig, nil, good},
		{"mutual TLS without a certificate", MutualTLS, trusting, nil, alert},
		{"mutual TLS with an expired certificate", MutualTLS, withCert(files.ExpiredCert, files.ExpiredKey), nil, alert},
		{"expired server certificate", ExpiredTLS, trusting, nil, expired},
		{"SASL without signing in", SASLTLS, trusting, nil, anyError},
		{"SASL of an unknown user", SASLTLS, trusting, plain.Mechanism{Username: "nobody", Password: user.Password}, refusedSASL},
		{"SCRAM of an unknown user", SASLTLS, trusting, scramAs(t, scram.SHA512, "nobody", user.Password), refusedSASL},
	}
	for name, m := range password(user.Password) {
		attempts = append(attempts, attempt{name, SASLTLS, trusting, m, good})
	}
	for name, m := range password("wrong") {
		attempts = append(attempts, attempt{name + " with a wrong password", SASLTLS, trusting, m, refusedSASL})
	}
	for _, a := range attempts {
		if err := knock(ctx, c.Addr(1, a.listener), a.config, a.mechanism); !a.want(err) {
			t.Errorf("%s: %v", a.name, err)
		} else if err != nil {
			t.Logf("%s: %v", a.name, err)
		}
	}

	// Not only the door: records go in and come out through TLS and SCRAM.
	cl := client(t, &kafka.Transport{TLS: trusting, SASL: password(user.Password)["SCRAM-SHA-512"]}, c.Bootstrap(SASLTLS))
	createTopic(t, ctx, cl, 1, nil)
	offset, _ := produceUntil(t, ctx, cl, "through SASL_SSL")
	mustHold(t, readAll(t, ctx, c, Plaintext), map[int64]string{offset: "through SASL_SSL"})
}

func TestACLsHoldBackWhoHasNone(t *testing.T) {
	ctx := deadline(t)
	root, writer := User{"root", "root-secret"}, User{"writer", "writer-secret"}
	c := ForTest(t, Options{
		Listeners: []Listener{Plaintext, SASLTLS, MutualTLS}, Users: []User{root, writer},
		ACLs: true, SuperUsers: []string{root.Name, ClientName},
	})
	as := func(u User) *kafka.Client {
		return client(t, &kafka.Transport{TLS: trustOnly(t, c.Files().CA), SASL: plain.Mechanism{Username: u.Name, Password: u.Password}}, c.Bootstrap(SASLTLS))
	}
	writing := as(writer)
	createTopic(t, ctx, as(root), 1, nil)
	// Brokers do not even name the topic to somebody without the right to describe it.
	for name, cl := range map[string]*kafka.Client{"a user without rights": writing, "ANONYMOUS": plaintext(t, c)} {
		if _, err := produce(ctx, cl, "no right"); err == nil {
			t.Errorf("%s has written", name)
		}
	}
	if err := c.Allow(ctx, writer.Name, testTopic, kafka.ACLOperationTypeDescribe); err != nil {
		t.Fatal(err)
	}
	err := poll(ctx, func() error {
		_, err := produce(ctx, writing, "sees the topic, may not write")
		if err == nil {
			return final{errors.New("a user has written who may only look")}
		}
		if !errors.Is(err, kafka.TopicAuthorizationFailed) {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatalf("produce without the right to write: %v, want TopicAuthorizationFailed", err)
	}
	if err := c.Allow(ctx, writer.Name, testTopic, kafka.ACLOperationTypeWrite); err != nil {
		t.Fatal(err)
	}
	produceUntil(t, ctx, writing, "with the right")

	config, err := c.Files().ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	byCertificate := client(t, &kafka.Transport{TLS: config}, c.Bootstrap(MutualTLS))
	if _, err := produce(ctx, byCertificate, "a super user by certificate"); err != nil {
		t.Errorf("the client certificate's common name is not the user: %v", err)
	}
}

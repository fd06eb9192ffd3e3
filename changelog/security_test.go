package changelog_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drover-io/drover/changelog"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestAWrongConfigurationIsToldBeforeConnecting(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	nothing, empty := filepath.Join(dir, "absent"), write("empty", "\n")
	noPEM := write("no.pem", "hello")
	locked := write("locked.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	plain := func(user string, password changelog.Secret, file string) changelog.SASL {
		return changelog.SASL{Mechanism: changelog.SASLPlain, User: user, Password: password, PasswordFile: file}
	}
	for name, c := range map[string]struct {
		security changelog.Security
		want     string
	}{
		"CA absent":            {changelog.Security{TLS: changelog.TLS{Enable: true, CAFile: nothing}}, nothing},
		"CA without a cert":    {changelog.Security{TLS: changelog.TLS{Enable: true, CAFile: noPEM}}, "PEM"},
		"CA without TLS":       {changelog.Security{TLS: changelog.TLS{CAFile: noPEM}}, "add --kafka.tls"},
		"cert without key":     {changelog.Security{TLS: changelog.TLS{Enable: true, CertFile: noPEM}}, "--kafka.tls.key"},
		"cert no certificate":  {changelog.Security{TLS: changelog.TLS{Enable: true, CertFile: noPEM, KeyFile: noPEM}}, noPEM},
		"key absent":           {changelog.Security{TLS: changelog.TLS{Enable: true, CertFile: noPEM, KeyFile: nothing}}, nothing},
		"key encrypted":        {changelog.Security{TLS: changelog.TLS{Enable: true, CertFile: noPEM, KeyFile: locked}}, "passphrase"},
		"unknown mechanism":    {changelog.Security{SASL: changelog.SASL{Mechanism: "GSSAPI"}}, "SCRAM-SHA-512"},
		"user, no mechanism":   {changelog.Security{SASL: changelog.SASL{User: "u"}}, "--kafka.sasl.mechanism"},
		"no user":              {changelog.Security{SASL: plain("", "p", "")}, "--kafka.sasl.user"},
		"no password":          {changelog.Security{SASL: plain("u", "", "")}, "DROVER_KAFKA_SASL_PASSWORD"},
		"password file absent": {changelog.Security{SASL: plain("u", "p", nothing)}, nothing},
		"password file empty":  {changelog.Security{SASL: plain("u", "p", empty)}, "is empty"},
		"IAM without TLS":      {changelog.Security{SASL: changelog.SASL{Mechanism: changelog.SASLAWSMSKIAM}}, "--kafka.tls"},
	} {
		_, err := changelog.Open(deadline(t), changelog.Options{Brokers: []string{"127.0.0.1:1"}, Cluster: "x", Security: c.security})
		if !errors.Is(err, changelog.ErrConfiguration) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want a wrong configuration with %q", name, err, c.want)
		}
	}
	good := changelog.Security{SASL: plain("u", "", write("good", "secret\r\n"))}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

func TestPasswordsDoNotShow(t *testing.T) {
	s := changelog.Security{SASL: changelog.SASL{Mechanism: changelog.SASLPlain, User: "u", Password: "hunter2"}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, s); strings.Contains(text, "hunter2") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

// TestABrokerThatHangsWhileSigningInIsLeft: kafka-go v0.4.51 itself would wait for
// ever there.
func TestABrokerThatHangsWhileSigningInIsLeft(t *testing.T) {
	for name, key := range map[string]kmsg.Key{"handshake": kmsg.SASLHandshake, "authenticate": kmsg.SASLAuthenticate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "p"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(k.Close)
			var swallowed atomic.Int64
			k.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				swallowed.Add(1)
				return nil, nil, true // no answer, and the connection stays
			})
			l, err := changelog.Open(deadline(t), changelog.Options{
				Brokers: k.ListenAddrs(), Cluster: "x",
				Security: changelog.Security{SASL: changelog.SASL{Mechanism: changelog.SASLPlain, User: "u", Password: "p"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			if swallowed.Load() == 0 {
				t.Error("nothing was swallowed")
			}
		})
	}
}

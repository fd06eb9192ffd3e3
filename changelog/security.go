package changelog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
)

// Security says how the connections to the brokers are protected. The zero
// value is plaintext without a user.
type Security struct {
	TLS  TLS
	SASL SASL
}

// TLS of the connections to the brokers. Files are read again for each new
// connection, so that certificates can be exchanged without a restart.
type TLS struct {
	Enable     bool
	CAFile     string // PEM; default: the system's roots
	CertFile   string // PEM, the client's certificate, with KeyFile
	KeyFile    string
	ServerName string // expected in the broker's certificate; default: the host connected to
}

// SASLMechanism is how a user proves who it is.
type SASLMechanism string

// The mechanisms that can be used.
const (
	SASLPlain       SASLMechanism = "PLAIN"
	SASLScramSHA256 SASLMechanism = "SCRAM-SHA-256"
	SASLScramSHA512 SASLMechanism = "SCRAM-SHA-512"
	SASLAWSMSKIAM   SASLMechanism = "AWS_MSK_IAM"
)

// SASL says who connects. With [SASLAWSMSKIAM] the AWS SDK's default chain finds
// the credentials, and user and password are not used.
type SASL struct {
	Mechanism    SASLMechanism // empty: none
	User         string
	Password     Secret
	PasswordFile string // wins over Password; read again for each new connection; one newline at its end is ignored
	Region       string // of the MSK cluster; default: what the AWS SDK's configuration says
}

// Secret is a string that does not show in logs and error texts.
type Secret string

// String implements [fmt.Stringer].
func (Secret) String() string { return "(secret)" }

// GoString implements [fmt.GoStringer].
func (Secret) GoString() string { return "(secret)" }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Check reads all files and says what is missing or wrong: an [ErrConfiguration],
// or an [ErrExpired] for a client certificate that has ended. It connects to nobody.
func (s Security) Check() error {
	if err := s.TLS.check(); err != nil {
		return err
	}
	return s.SASL.check(s.TLS.Enable)
}

func (t TLS) check() error {
	if !t.Enable {
		for _, given := range []struct{ value, flag string }{
			{t.CAFile, "--kafka.tls.ca"}, {t.CertFile, "--kafka.tls.cert"}, {t.KeyFile, "--kafka.tls.key"}, {t.ServerName, "--kafka.tls.server-name"},
		} {
			if given.value != "" {
				return configurationError("%s is given, but TLS is off: add --kafka.tls", given.flag)
			}
		}
		return nil
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return configurationError("--kafka.tls.cert and --kafka.tls.key belong together: one of them is missing")
	}
	config, err := t.load()
	if err != nil {
		return err
	}
	return t.expired(config)
}

func (s SASL) check(encrypted bool) error {
	switch s.Mechanism {
	case "":
		if s.User != "" || s.PasswordFile != "" {
			return configurationError("a Kafka user or password is given, but no mechanism: add --kafka.sasl.mechanism (%s)", mechanisms)
		}
		return nil
	case SASLAWSMSKIAM:
		if !encrypted {
			return configurationError("mechanism %s needs TLS: add --kafka.tls", s.Mechanism)
		}
		_, err := loadAWS(context.Background(), s)
		return err
	case SASLPlain, SASLScramSHA256, SASLScramSHA512:
	default:
		return configurationError("--kafka.sasl.mechanism %q is not known: use %s", string(s.Mechanism), mechanisms)
	}
	if s.User == "" {
		return configurationError("mechanism %s needs a user: add --kafka.sasl.user", s.Mechanism)
	}
	password, err := s.password()
	if err != nil {
		return err
	}
	if password == "" && s.PasswordFile != "" {
		return configurationError("the Kafka password file %s is empty", s.PasswordFile)
	}
	if password == "" {
		return configurationError("the password of Kafka user %q is missing: name a file with --kafka.sasl.password-file, or set the environment variable DROVER_KAFKA_SASL_PASSWORD", s.User)
	}
	return nil
}

const mechanisms = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or AWS_MSK_IAM"

func configurationError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrConfiguration, fmt.Errorf(format, args...))
}

// password reads the file anew each time.
func (s SASL) password() (string, error) {
	if s.PasswordFile == "" {
		return string(s.Password), nil
	}
	text, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", configurationError("cannot read the Kafka password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// load reads the files.
func (t TLS) load() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, configurationError("cannot read --kafka.tls.ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, configurationError("--kafka.tls.ca %s holds no certificate in PEM form", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := loadPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
		// Also when the broker names other CAs than the certificate's: the broker's
		// refusal says more than its complaint that there is no certificate.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, configurationError("cannot read --kafka.tls.cert: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, configurationError("cannot read --kafka.tls.key: %w", err)
	}
	if block, _ := pem.Decode(key); block != nil && block.Type == "ENCRYPTED PRIVATE KEY" {
		return tls.Certificate{}, configurationError("--kafka.tls.key %s is encrypted: write it without a passphrase (openssl pkey), readable for Drover alone", keyFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, configurationError("--kafka.tls.cert %s and --kafka.tls.key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// expired looks at the client's own certificate: a broker that refuses it says
// less, or closes the connection without a word.
func (t TLS) expired(config *tls.Config) error {
	if len(config.Certificates) == 0 || config.Certificates[0].Leaf == nil {
		return nil
	}
	if until := config.Certificates[0].Leaf.NotAfter; time.Now().After(until) {
		return fmt.Errorf("%w: the client certificate %s ended at %s: put a new one in its place", ErrExpired, t.CertFile, until.UTC().Format(time.RFC3339))
	}
	return nil
}

// authError is a failure to sign in on our side of the exchange.
type authError struct {
	mechanism SASLMechanism
	err       error
	// passing failures can mend themselves: AWS credentials that are asked for
	// over the network.
	passing bool
}

func (e *authError) Error() string { return fmt.Sprintf("sign in with %s: %v", e.mechanism, e.err) }
func (e *authError) Unwrap() error { return e.err }

// isPassing reports an authError that is worth another try.
func isPassing(err error) bool {
	var a *authError
	return errors.As(err, &a) && (a.passing || errors.Is(a.err, context.DeadlineExceeded))
}

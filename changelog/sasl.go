package changelog

import (
	"context"
	"log/slog"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/aws_msk_iam_v2"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// signer makes a kafka-go mechanism anew for each connection, since the password
// may have changed.
type signer struct {
	opts SASL
	log  *slog.Logger

	mu       sync.Mutex
	password string // the last that could be read
	aws      *aws.Config
}

// newSigner returns nil when there is no mechanism.
func newSigner(o SASL, log *slog.Logger) sasl.Mechanism {
	if o.Mechanism == "" {
		return nil
	}
	return &signer{opts: o, log: log}
}

// Name implements [sasl.Mechanism].
func (s *signer) Name() string { return string(s.opts.Mechanism) }

// Start implements [sasl.Mechanism].
func (s *signer) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	m, err := s.mechanism(ctx)
	if err != nil {
		return nil, nil, err
	}
	machine, first, err := m.Start(ctx)
	if err != nil {
		return nil, nil, &authError{mechanism: s.opts.Mechanism, err: err, passing: s.opts.Mechanism == SASLAWSMSKIAM}
	}
	return exchange{machine, s.opts.Mechanism}, first, nil
}

func (s *signer) mechanism(ctx context.Context) (sasl.Mechanism, error) {
	if s.opts.Mechanism == SASLAWSMSKIAM {
		return s.iam(ctx)
	}
	password, err := s.secret()
	if err != nil {
		return nil, err
	}
	var m sasl.Mechanism = plain.Mechanism{Username: s.opts.User, Password: password}
	switch s.opts.Mechanism {
	case SASLScramSHA256:
		m, err = scram.Mechanism(scram.SHA256, s.opts.User, password)
	case SASLScramSHA512:
		m, err = scram.Mechanism(scram.SHA512, s.opts.User, password)
	}
	if err != nil {
		return nil, &authError{mechanism: s.opts.Mechanism, err: err}
	}
	return m, nil
}

// secret reads the password. A file that is just being exchanged must not end a
// program that runs: then the last one is taken, and the broker decides.
func (s *signer) secret() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	password, err := s.opts.password()
	if err == nil && password != "" {
		s.password = password
		return password, nil
	}
	if s.password == "" {
		if err == nil {
			err = configurationError("the password of Kafka user %q is empty", s.opts.User)
		}
		return "", err
	}
	s.log.Warn("cannot read the Kafka password again; going on with the last one", "file", s.opts.PasswordFile, "err", err)
	return s.password, nil
}

// iam signs with what the AWS SDK's default chain finds. The configuration is
// kept: it refreshes its credentials by itself.
func (s *signer) iam(ctx context.Context) (sasl.Mechanism, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aws == nil {
		config, err := loadAWS(ctx, s.opts)
		if err != nil {
			return nil, err
		}
		s.aws = &config
	}
	return aws_msk_iam_v2.NewMechanism(*s.aws), nil
}

// loadAWS reads environment and files; it asks nobody.
func loadAWS(ctx context.Context, o SASL) (aws.Config, error) {
	var options []func(*awsconfig.LoadOptions) error
	if o.Region != "" {
		options = append(options, awsconfig.WithRegion(o.Region))
	}
	config, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return config, configurationError("AWS configuration: %w", err)
	}
	if config.Region == "" {
		return config, configurationError("mechanism %s needs the cluster's region: add --kafka.aws.region", o.Mechanism)
	}
	return config, nil
}

// exchange marks the errors of a running sign-in: those of SCRAM are plain texts.
type exchange struct {
	sasl.StateMachine
	mechanism SASLMechanism
}

// Next implements [sasl.StateMachine].
func (e exchange) Next(ctx context.Context, challenge []byte) (bool, []byte, error) {
	done, answer, err := e.StateMachine.Next(ctx, challenge)
	if err != nil {
		err = &authError{mechanism: e.mechanism, err: err}
	}
	return done, answer, err
}

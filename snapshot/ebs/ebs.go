// Package ebs takes snapshots of a datadir as EBS snapshots of the volume that holds it, and brings one back as a volume:
// minutes where copying terabytes takes hours. What is known of a snapshot stands in its tags. DESIGN.md says what was and
// was not exercised outside AWS.
package ebs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/drover-io/drover/snapshot"
)

// Options of a Backend.
type Options struct {
	// Cluster whose snapshots these are.
	Cluster string
	// Region; "" = from the environment.
	Region string
	// Endpoint is the URL of an emulator; "" = AWS.
	Endpoint string
	// Credentials; nil = the SDK's default chain.
	Credentials aws.CredentialsProvider
	// System is what is done on this host; nil = Linux().
	System System
	// Poll is the interval at which the state of a volume or snapshot is asked for; default 5 s.
	Poll time.Duration
	// Logger is told what is made and removed; nil = nobody.
	Logger *slog.Logger
}

// Backend takes, finds and brings back EBS snapshots of one cluster.
type Backend struct {
	opts   Options
	client *ec2.Client
}

// New checks the options and the credential. Errors: snapshot.ErrUsage, snapshot.ErrUnreachable.
func New(ctx context.Context, opts Options) (*Backend, error) {
	if opts.Cluster == "" {
		return nil, fmt.Errorf("%w: EBS snapshots need a cluster name", snapshot.ErrUsage)
	}
	if opts.System == nil {
		opts.System = Linux()
	}
	if opts.Poll == 0 {
		opts.Poll = 5 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	var load []func(*awsconfig.LoadOptions) error
	if opts.Region != "" {
		load = append(load, awsconfig.WithRegion(opts.Region))
	}
	if opts.Credentials != nil {
		load = append(load, awsconfig.WithCredentialsProvider(opts.Credentials))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("%w: AWS configuration: %w", snapshot.ErrUsage, err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("%w: no AWS region: set AWS_REGION or the region option", snapshot.ErrUsage)
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("%w: no usable AWS credential: set AWS_PROFILE or the access key, or give this host a role (%w)", snapshot.ErrUnreachable, err)
	}
	return &Backend{opts: opts, client: ec2.NewFromConfig(cfg, func(o *ec2.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
	})}, nil
}

// String names the backend as --store does.
func (b *Backend) String() string { return "ebs:" + b.opts.Cluster }

// explain makes one line of an SDK's error.
func (b *Backend) explain(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", b, what, ctx.Err())
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Errorf("%s: %s: %w: no answer from EC2: check the network and the region (%w)", b, what, snapshot.ErrUnreachable, err)
	}
	words := fmt.Sprintf("(%s %s)", api.ErrorCode(), api.ErrorMessage())
	switch api.ErrorCode() {
	case "InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed":
		return fmt.Errorf("%s: %s: %w %s", b, what, snapshot.ErrNoSnapshot, words)
	case "UnauthorizedOperation", "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "OptInRequired":
		return fmt.Errorf("%s: %s: %w: access is denied: the credential needs the rights that the docs list for EBS %s", b, what, snapshot.ErrUnreachable, words)
	case "RequestExpired", "ExpiredToken":
		return fmt.Errorf("%s: %s: %w: the AWS credential has expired: renew it %s", b, what, snapshot.ErrUnreachable, words)
	case "SnapshotLimitExceeded", "VolumeLimitExceeded", "MaxIOPSLimitExceeded", "InsufficientVolumeCapacity", "AttachmentLimitExceeded":
		return fmt.Errorf("%s: %s: %w: raise the account's limit or remove what is not needed %s", b, what, snapshot.ErrFull, words)
	}
	return fmt.Errorf("%s: %s: %s", b, what, words)
}

// wait asks until done, in Poll's interval. A request that fails for want of an answer is no reason to give up hours of
// copying: it is asked again, until ctx ends.
func (b *Backend) wait(ctx context.Context, what string, done func() (bool, error)) error {
	tick := time.NewTicker(b.opts.Poll)
	defer tick.Stop()
	for {
		ok, err := done()
		switch {
		case err != nil && !errors.Is(err, snapshot.ErrUnreachable):
			return err
		case err != nil && ctx.Err() == nil:
			b.opts.Logger.Warn("waiting goes on", "for", what, "error", err)
		case ok:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: wait until %s: %w", b, what, ctx.Err())
		case <-tick.C:
		}
	}
}

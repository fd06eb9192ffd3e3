package s3store

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"github.com/drover-io/drover/snapshot"
)

// Options of a Store. Only URL is needed on AWS: region and credential come from where every AWS program takes them
// (environment, ~/.aws, the role of instance, container or pod).
type Options struct {
	// URL is s3://BUCKET or s3://BUCKET/PREFIX.
	URL string
	// Endpoint is the URL of another S3-compatible server; "" = AWS.
	Endpoint string
	// PathStyle puts the bucket into the path instead of the host name, as most servers other than AWS want it.
	PathStyle bool
	// Region of the bucket; "" = from the environment, and us-east-1 where that says nothing and Endpoint is set.
	Region string
	// Credentials; nil = the SDK's default chain.
	Credentials aws.CredentialsProvider
	// StorageClass of new objects, for example STANDARD_IA; "" = the bucket's.
	StorageClass string
	// Encryption is AES256, aws:kms or aws:kms:dsse; "" = the bucket's default, or aws:kms when KMSKey is set.
	Encryption string
	// KMSKey is the id, alias or ARN of the key for aws:kms; "" = the account's key for S3.
	KMSKey string
	// PartSize is how much is sent or read in one request, in bytes: at least 5 MiB (S3's smallest part), default 16 MiB.
	// A smaller object is one request, and one of more than 10 000 parts gets larger parts.
	PartSize int64
	// Concurrency is how many parts of one object are under way at once; default 4. A Put or Get of a large object
	// needs Concurrency+1 times PartSize of memory.
	Concurrency int
	// Attempts is how often a request is tried before the store counts as unreachable; default 8, which with the
	// growing waits between them (20 s at most) spans about a minute.
	Attempts int
	// Stall is how long a connection may stand still before the request on it is given up and tried again; default 60 s.
	// It must be longer than the line takes to empty the kernel's send buffer (4 MiB on Linux), which nobody sees move.
	Stall time.Duration
	// AbandonAfter is how old an unfinished upload must be for Clean to abort it: longer than any Put; default 24 h.
	AbandonAfter time.Duration
	// Logger is told what is retried and cleaned up; nil = nobody.
	Logger *slog.Logger
}

const minPartSize = 5 << 20

func (o Options) withDefaults() (_ Options, bucket, prefix string, err error) {
	if bucket, prefix, err = parseURL(o.URL); err != nil {
		return o, "", "", err
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return o, "", "", fmt.Errorf("%w: endpoint %q: want http://HOST or https://HOST", snapshot.ErrUsage, o.Endpoint)
		}
	}
	if o.PartSize == 0 {
		o.PartSize = 16 << 20
	}
	if o.PartSize < minPartSize {
		return o, "", "", fmt.Errorf("%w: a part of %d bytes: S3 takes none smaller than %d", snapshot.ErrUsage, o.PartSize, minPartSize)
	}
	if o.KMSKey != "" && o.Encryption == "" {
		o.Encryption = string(types.ServerSideEncryptionAwsKms)
	}
	if err := o.checkNames(); err != nil {
		return o, "", "", err
	}
	if o.Concurrency == 0 {
		o.Concurrency = 4
	}
	if o.Attempts == 0 {
		o.Attempts = 8
	}
	if o.Concurrency < 0 || o.Attempts < 0 || o.Stall < 0 || o.AbandonAfter < 0 {
		return o, "", "", fmt.Errorf("%w: concurrency, attempts and limits cannot be negative", snapshot.ErrUsage)
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.AbandonAfter == 0 {
		o.AbandonAfter = 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, bucket, prefix, nil
}

// checkNames refuses a misspelt storage class or encryption here, where AWS would do so in the middle of a snapshot.
// Other servers have classes of their own.
func (o Options) checkNames() error {
	class := types.StorageClass(o.StorageClass)
	if o.StorageClass != "" && o.Endpoint == "" && !slices.Contains(class.Values(), class) {
		return fmt.Errorf("%w: storage class %q: AWS knows %v", snapshot.ErrUsage, o.StorageClass, class.Values())
	}
	if class == types.StorageClassGlacier || class == types.StorageClassDeepArchive {
		return fmt.Errorf("%w: storage class %s: such objects cannot be read before hours, so no snapshot could be verified or restored", snapshot.ErrUsage, class)
	}
	switch types.ServerSideEncryption(o.Encryption) {
	case "", types.ServerSideEncryptionAes256:
		if o.KMSKey != "" {
			return fmt.Errorf("%w: a KMS key goes with encryption aws:kms or aws:kms:dsse, not %q", snapshot.ErrUsage, o.Encryption)
		}
	case types.ServerSideEncryptionAwsKms, types.ServerSideEncryptionAwsKmsDsse:
	default:
		return fmt.Errorf("%w: encryption %q: want AES256, aws:kms or aws:kms:dsse", snapshot.ErrUsage, o.Encryption)
	}
	return nil
}

// parseURL splits s3://BUCKET/PREFIX; the prefix comes back without slashes at its ends.
func parseURL(text string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(text, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(text, "?#% ") {
		return "", "", fmt.Errorf("%w: %q: want s3://BUCKET or s3://BUCKET/PREFIX", snapshot.ErrUsage, text)
	}
	if strings.HasSuffix(bucket, "--x-s3") {
		return "", "", fmt.Errorf("%w: %q: a directory bucket lists its keys in no order: use a general purpose bucket", snapshot.ErrUsage, text)
	}
	prefix = strings.Trim(prefix, "/")
	if slices.ContainsFunc(strings.Split(prefix, "/"), func(s string) bool { return s == "." || s == ".." }) || strings.Contains(prefix, "//") {
		return "", "", fmt.Errorf("%w: %q: empty, \".\" or \"..\" parts in the prefix", snapshot.ErrUsage, text)
	}
	return bucket, prefix, nil
}

// client makes the SDK's client and checks that there is a credential at all, for the SDK itself looks only when the
// first request is signed, and then says so in many words.
func (o Options) client(ctx context.Context) (*s3.Client, error) {
	load := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithHTTPClient(httpClient(o.Stall)),
		awsconfig.WithRetryer(func() aws.Retryer { return o.retryer(o.Attempts) }),
	}
	if o.Region != "" {
		load = append(load, awsconfig.WithRegion(o.Region))
	}
	if o.Credentials != nil {
		load = append(load, awsconfig.WithCredentialsProvider(o.Credentials))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("%w: AWS configuration: %w", snapshot.ErrUsage, err)
	}
	if cfg.Region == "" {
		if o.Endpoint == "" {
			return nil, fmt.Errorf("%w: no AWS region: set AWS_REGION or the region option", snapshot.ErrUsage)
		}
		cfg.Region = "us-east-1"
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: no usable AWS credential: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this host a role (%w)",
			snapshot.ErrUnreachable, err)
	}
	return s3.NewFromConfig(cfg, func(s *s3.Options) {
		s.UsePathStyle = o.PathStyle
		s.Logger = logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
			o.Logger.Debug(fmt.Sprintf(format, v...)) // warnings too: what matters comes back as an error
		})
		s.DisableLogOutputChecksumValidationSkipped = true // S3 gives none for a range
		if o.Endpoint != "" {
			s.BaseEndpoint = aws.String(o.Endpoint)
		}
	}), nil
}

// retryer has no token bucket: the SDK's default one makes many uploads side by side give up together early in an
// outage that each alone would have outlasted.
func (o Options) retryer(attempts int) aws.Retryer {
	return retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxAttempts = attempts
		s.MaxBackoff = 20 * time.Second
		s.RateLimiter = ratelimit.None
	})
}

// httpClient gives up a connection on which nothing has moved for stall, in either direction. A limit on whole requests
// would be wrong: a part takes as long as the line is slow.
func httpClient(stall time.Duration) *awshttp.BuildableClient {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.MaxIdleConnsPerHost = 64
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, stall: stall}, nil
		}
	})
}

// stallConn moves its deadline on with every read and write. Reading waits for an answer while writing sends the body, so
// one deadline serves both.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	_ = c.Conn.SetDeadline(time.Now().Add(c.stall)) // an error here comes again from Read
	n, err := c.Conn.Read(p)
	if n > 0 {
		_ = c.Conn.SetDeadline(time.Now().Add(c.stall))
	}
	return n, err
}

func (c *stallConn) Write(p []byte) (int, error) {
	_ = c.Conn.SetDeadline(time.Now().Add(c.stall))
	n, err := c.Conn.Write(p)
	if n > 0 {
		_ = c.Conn.SetDeadline(time.Now().Add(c.stall))
	}
	return n, err
}

package alert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/smithy-go"
)

// SNSOptions of an SNS. Region and credential come from the topic's ARN and from where every AWS program takes them.
type SNSOptions struct {
	// Topic is the topic's ARN; its region is the one that is asked.
	Topic string
	// Endpoint is the URL of an emulator; "" = AWS.
	Endpoint string
	// Credentials; nil = the SDK's default chain.
	Credentials aws.CredentialsProvider
}

// SNS publishes alerts to an SNS topic: text for people (e-mail, text messages), a Message for programs (Lambda, SQS, HTTP).
// The message attributes status, severity, name and cluster are for filter policies.
type SNS struct {
	opts   SNSOptions
	name   string
	client *sns.Client
}

// NewSNS checks the options. The credential is looked for when there is an alert. ErrUsage.
func NewSNS(ctx context.Context, opts SNSOptions) (*SNS, error) {
	topic, err := arn.Parse(opts.Topic)
	if err != nil || topic.Service != "sns" || topic.Region == "" || topic.Resource == "" || strings.Contains(topic.Resource, ":") {
		return nil, fmt.Errorf("%w: %.100q is no SNS topic: want arn:aws:sns:REGION:ACCOUNT:TOPIC", ErrUsage, opts.Topic)
	}
	load := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(topic.Region)}
	if opts.Credentials != nil {
		load = append(load, awsconfig.WithCredentialsProvider(opts.Credentials))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("%w: AWS configuration: %w", ErrUsage, err)
	}
	return &SNS{opts: opts, name: topic.Resource, client: sns.NewFromConfig(cfg, func(o *sns.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(opts.Endpoint)
		}
	})}, nil
}

// String names the topic.
func (s *SNS) String() string { return "SNS topic " + s.name }

// Fire publishes the alert.
func (s *SNS) Fire(ctx context.Context, a Alert) error { return s.publish(ctx, firing, a) }

// Resolve publishes that the alert is over.
func (s *SNS) Resolve(ctx context.Context, a Alert) error { return s.publish(ctx, resolved, a) }

func (s *SNS) publish(ctx context.Context, status string, a Alert) error {
	if err := a.check(); err != nil {
		return err
	}
	message := newMessage(status, a)
	program, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("alert to %s: %w", s, err)
	}
	body, err := json.Marshal(map[string]string{
		"default": forPeople(message), "email-json": string(program), "sqs": string(program), "lambda": string(program),
		"http": string(program), "https": string(program), "firehose": string(program), "sms": message.Text,
	})
	if err != nil {
		return fmt.Errorf("alert to %s: %w", s, err)
	}
	in := &sns.PublishInput{
		TopicArn: &s.opts.Topic, Subject: aws.String(subject(message)), Message: aws.String(string(body)), MessageStructure: aws.String("json"),
		MessageAttributes: make(map[string]types.MessageAttributeValue),
	}
	for key, value := range map[string]string{"status": status, "severity": a.Severity, "name": a.Name, "cluster": a.Cluster} {
		if value != "" { // which SNS refuses
			in.MessageAttributes[key] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &value}
		}
	}
	if strings.HasSuffix(s.name, ".fifo") {
		sum := sha256.Sum256(program)
		in.MessageGroupId, in.MessageDeduplicationId = aws.String("drover-"+a.Cluster), aws.String(hex.EncodeToString(sum[:]))
	}
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	if _, err = s.client.Publish(ctx, in); err != nil {
		return s.explain(ctx, err)
	}
	return nil
}

// explain makes one line of an SDK's error.
func (s *SNS) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("alert to %s: no answer: check the network and the region (%w)", s, ctx.Err())
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
			err = inner
		}
		return fmt.Errorf("alert to %s: no answer, or no AWS credential: check AWS_PROFILE or this host's role, and the network (%s)", s, oneLine(err.Error()))
	}
	words := oneLine(fmt.Sprintf("(%s %s)", api.ErrorCode(), api.ErrorMessage()))
	switch api.ErrorCode() {
	case "NotFound", "NotFoundException":
		return fmt.Errorf("alert to %s: %w: there is no such topic %s", s, ErrRefused, words)
	case "ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return fmt.Errorf("alert to %s: the AWS credential has expired: renew it %s", s, words)
	case "AuthorizationError", "AuthorizationErrorException", "AccessDenied", "AccessDeniedException", "InvalidClientTokenId",
		"SignatureDoesNotMatch", "AuthFailure", "KMSAccessDenied":
		return fmt.Errorf("alert to %s: %w: the credential needs sns:Publish here %s", s, ErrRefused, words)
	case "InvalidParameter", "InvalidParameterException", "ValidationError":
		return fmt.Errorf("alert to %s: %w %s", s, ErrRefused, words)
	}
	return fmt.Errorf("alert to %s: it fails or is overloaded %s", s, words)
}

// forPeople is what an e-mail says.
func forPeople(m Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nstatus: %s\nseverity: %s\ncluster: %s\nalert: %s\nvalue: %g\nat: %s\n",
		m.Summary, m.Status, m.Severity, m.Cluster, m.Name, m.Value, m.At.UTC().Format(time.RFC3339))
	for _, key := range sortedKeys(m.Labels) {
		fmt.Fprintf(&b, "%s: %s\n", key, m.Labels[key])
	}
	return b.String()
}

// subject is of the form that SNS takes: printable ASCII, a letter, digit or punctuation first, less than 100 characters.
func subject(m Message) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, m.Text)
	const limit = 99
	if len(plain) > limit {
		plain = plain[:limit-3] + "..."
	}
	return plain
}

package alert

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// ParseOptions hold what the name of a receiver does not.
type ParseOptions struct {
	// Webhook is for receivers that are webhooks; its URL is not looked at.
	Webhook WebhookOptions
	// Hold and Generator are for receivers that are Alertmanagers.
	Hold      time.Duration
	Generator string
	// Endpoint and Credentials are for SNS topics.
	Endpoint    string
	Credentials aws.CredentialsProvider
}

// Parse makes an Alerter of a receiver's name on the command line:
//
//	webhook:https://HOST/PATH   alertmanager:http://HOST:9093   sns:arn:aws:sns:REGION:ACCOUNT:TOPIC
//
// ErrUsage; its text does not repeat a URL, which may be a secret.
func Parse(ctx context.Context, receiver string, opts ParseOptions) (Alerter, error) {
	kind, rest, _ := strings.Cut(receiver, ":")
	switch kind {
	case "webhook":
		opts.Webhook.URL = rest
		w, err := NewWebhook(opts.Webhook)
		if err != nil {
			return nil, err
		}
		return w, nil
	case "alertmanager":
		m, err := NewAlertmanager(AlertmanagerOptions{URL: rest, Hold: opts.Hold, Generator: opts.Generator})
		if err != nil {
			return nil, err
		}
		return m, nil
	case "sns":
		s, err := NewSNS(ctx, SNSOptions{Topic: rest, Endpoint: opts.Endpoint, Credentials: opts.Credentials})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	if len(kind) > 20 || kind == receiver {
		kind = "that"
	}
	return nil, fmt.Errorf("%w: a receiver of alerts is webhook:URL, alertmanager:URL or sns:ARN, and not %q", ErrUsage, kind)
}

// ParseAll is Parse for each, as one Alerter.
func ParseAll(ctx context.Context, receivers []string, opts ParseOptions) (Alerter, error) {
	var all []Alerter
	for _, receiver := range receivers {
		to, err := Parse(ctx, receiver, opts)
		if err != nil {
			return nil, err
		}
		all = append(all, to)
	}
	return Several(all...), nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

package alert

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// WebhookOptions of a Webhook.
type WebhookOptions struct {
	// URL that alerts are posted to.
	URL string
	// Header carries the secret; default Authorization, whose value then is "Bearer SECRET". Another header's is the secret itself.
	Header string
	// Secret, or SecretFile that holds it and is read for each delivery, so that it can be renewed; both "" = no header.
	Secret     string
	SecretFile string
}

// Webhook posts alerts as JSON documents (Message) to a URL.
type Webhook struct {
	opts   WebhookOptions
	url    *url.URL
	client *http.Client
}

// Message is what a webhook, and a program that subscribes to an SNS topic, gets.
type Message struct {
	Format int    `json:"format"` // 1
	Status string `json:"status"` // firing, resolved
	// Text is all of it in one line: the field that chat programs' incoming webhooks show.
	Text string `json:"text"`
	Alert
}

// States of an alert, as Alertmanager names them.
const (
	firing   = "firing"
	resolved = "resolved"
)

func newMessage(status string, a Alert) Message {
	return Message{Format: 1, Status: status, Text: text(status, a), Alert: a}
}

func text(status string, a Alert) string {
	what := strings.ToUpper(a.Severity)
	if status == resolved {
		what = "RESOLVED"
	}
	return oneLine(fmt.Sprintf("%s: %s: cluster %s: %s", what, a.Name, a.Cluster, a.Summary))
}

// NewWebhook checks the options. ErrUsage.
func NewWebhook(opts WebhookOptions) (*Webhook, error) {
	u, err := parseURL(opts.URL)
	if err != nil {
		return nil, err
	}
	if opts.Secret != "" && opts.SecretFile != "" {
		return nil, fmt.Errorf("%w: a webhook's secret and a file that holds it: give one", ErrUsage)
	}
	if opts.Header == "" {
		opts.Header = "Authorization"
	}
	w := &Webhook{opts: opts, url: u, client: client()}
	if _, err := w.header(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return w, nil
}

// String names the webhook without what may be secret in its URL.
func (w *Webhook) String() string { return "webhook " + shown(w.url) }

// Fire posts the alert.
func (w *Webhook) Fire(ctx context.Context, a Alert) error { return w.send(ctx, firing, a) }

// Resolve posts that the alert is over.
func (w *Webhook) Resolve(ctx context.Context, a Alert) error { return w.send(ctx, resolved, a) }

func (w *Webhook) send(ctx context.Context, status string, a Alert) error {
	if err := a.check(); err != nil {
		return err
	}
	header, err := w.header()
	if err != nil {
		return fmt.Errorf("alert to %s: %w", w, err)
	}
	return post(ctx, w.client, w.String(), w.url, header, newMessage(status, a))
}

func (w *Webhook) header() (http.Header, error) {
	secret := w.opts.Secret
	if w.opts.SecretFile != "" {
		b, err := os.ReadFile(w.opts.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("the webhook's secret: %w", err)
		}
		if secret = strings.TrimSpace(string(b)); secret == "" {
			return nil, fmt.Errorf("the webhook's secret: %s is empty", w.opts.SecretFile)
		}
	}
	header := make(http.Header)
	if secret == "" {
		return header, nil
	}
	if strings.ContainsAny(secret, "\r\n\x00") {
		return nil, fmt.Errorf("the webhook's secret has more than one line")
	}
	if http.CanonicalHeaderKey(w.opts.Header) == "Authorization" && !strings.Contains(secret, " ") {
		secret = "Bearer " + secret // with a blank it names its scheme itself
	}
	header.Set(w.opts.Header, secret)
	return header, nil
}

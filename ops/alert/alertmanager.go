package alert

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"
)

// AlertmanagerOptions of an Alertmanager.
type AlertmanagerOptions struct {
	// URL of the Alertmanager, as http://HOST:9093 or with the prefix it is served under. A user and password in it are sent.
	URL string
	// Hold is how long an alert holds there after it was last fired; it has to be longer than the interval in which alerts are
	// repeated, or it ends by itself in between. Default 26 h.
	Hold time.Duration
	// Generator is the URL that the alert's "source" link leads to, for example this role's /status; may be "".
	Generator string
	// Labels are added to each alert.
	Labels map[string]string
}

// Alertmanager sends alerts to a Prometheus Alertmanager (API v2, POST /api/v2/alerts), which groups, silences and routes
// them. Of several that form a cluster each must be told: use Several.
type Alertmanager struct {
	opts   AlertmanagerOptions
	url    *url.URL
	client *http.Client
	now    func() time.Time
}

// NewAlertmanager checks the options. ErrUsage.
func NewAlertmanager(opts AlertmanagerOptions) (*Alertmanager, error) {
	u, err := parseURL(opts.URL)
	if err != nil {
		return nil, err
	}
	if opts.Hold < 0 {
		return nil, fmt.Errorf("%w: an alert cannot hold for %s", ErrUsage, opts.Hold)
	}
	if opts.Hold == 0 {
		opts.Hold = 26 * time.Hour
	}
	return &Alertmanager{opts: opts, url: u, client: client(), now: time.Now}, nil
}

// String names the Alertmanager without user and password.
func (m *Alertmanager) String() string { return "Alertmanager " + m.url.Scheme + "://" + m.url.Host }

// postable is postableAlert of Alertmanager's api/v2/openapi.yaml.
type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	StartsAt     *time.Time        `json:"startsAt,omitempty"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// Fire sends the alert, and ends the same one of other severities: to Alertmanager, whose alerts are told apart by their
// labels, those are others.
func (m *Alertmanager) Fire(ctx context.Context, a Alert) error {
	if err := a.check(); err != nil {
		return err
	}
	now := m.now()
	held := m.postable(a, a.Severity)
	held.StartsAt, held.EndsAt = &a.At, now.Add(m.opts.Hold)
	return m.send(ctx, append([]postable{held}, m.ended(a, now, func(severity string) bool { return severity != a.Severity })...))
}

// Resolve ends the alert, whatever its severity was.
func (m *Alertmanager) Resolve(ctx context.Context, a Alert) error {
	if err := a.check(); err != nil {
		return err
	}
	// Not later than now: Alertmanager would take it for one that still holds.
	at := a.At
	if now := m.now(); at.After(now) {
		at = now
	}
	return m.send(ctx, m.ended(a, at, func(string) bool { return true }))
}

func (m *Alertmanager) ended(a Alert, at time.Time, which func(severity string) bool) []postable {
	var all []postable
	severities := map[string]bool{Warning: true, Critical: true, a.Severity: true}
	for severity := range severities {
		if which(severity) {
			p := m.postable(a, severity)
			p.EndsAt = at
			all = append(all, p)
		}
	}
	return all
}

func (m *Alertmanager) postable(a Alert, severity string) postable {
	labels := make(map[string]string)
	maps.Copy(labels, m.opts.Labels)
	maps.Copy(labels, a.Labels)
	labels["alertname"], labels["severity"] = a.Name, severity
	if a.Cluster != "" {
		labels["cluster"] = a.Cluster
	}
	return postable{
		Labels:       labels,
		Annotations:  map[string]string{"summary": a.Summary, "value": fmt.Sprintf("%g", a.Value)},
		GeneratorURL: m.opts.Generator,
	}
}

func (m *Alertmanager) send(ctx context.Context, alerts []postable) error {
	return post(ctx, m.client, m.String(), m.url.JoinPath("api", "v2", "alerts"), nil, alerts)
}

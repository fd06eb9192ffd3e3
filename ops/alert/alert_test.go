package alert

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var started = time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC)

func example() Alert {
	return Alert{
		Name: "DroverSnapshotHeadroomLow", Cluster: "main", Severity: Warning, Summary: "2h0m0s are left: look at the schedule",
		Labels: map[string]string{"store": "s3://x"}, Value: 7200, At: started,
	}
}

// receiver notes what is posted to it.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	status   int
	answer   string
}

type request struct {
	header http.Header
	path   string
	body   []byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, request{req.Header.Clone(), req.URL.Path, body})
		w.WriteHeader(r.status)
		io.WriteString(w, r.answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request(nil), r.requests...)
}

func TestAWebhookGetsTheAlertAndItsEnd(t *testing.T) {
	r := newReceiver(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	w, err := NewWebhook(WebhookOptions{URL: r.URL + "/hook?token=t", SecretFile: secret})
	if err != nil {
		t.Fatal(err)
	}
	a := example()
	if err := w.Fire(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	write("second\n") // renewed meanwhile
	if err := w.Resolve(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	got := r.all()
	if len(got) != 2 || got[0].header.Get("Authorization") != "Bearer first" || got[1].header.Get("Authorization") != "Bearer second" {
		t.Fatalf("got %+v", got)
	}
	for i, status := range []string{"firing", "resolved"} {
		var m Message
		if err := json.Unmarshal(got[i].body, &m); err != nil {
			t.Fatal(err)
		}
		if m.Format != 1 || m.Status != status || m.Name != a.Name || m.Cluster != "main" || m.Value != 7200 || !m.At.Equal(started) || m.Labels["store"] != "s3://x" {
			t.Errorf("got %s", got[i].body)
		}
		if !strings.Contains(m.Text, "cluster main: 2h0m0s are left") || strings.HasPrefix(m.Text, "RESOLVED") != (status == "resolved") {
			t.Errorf("text %q", m.Text)
		}
	}
}

func TestASecretGoesIntoTheHeaderThatIsNamed(t *testing.T) {
	r := newReceiver(t)
	for _, c := range []struct{ header, secret, want string }{
		{"X-Token", "abc", "abc"}, {"Authorization", "GenieKey abc", "GenieKey abc"}, {"", "abc", "Bearer abc"},
	} {
		w, err := NewWebhook(WebhookOptions{URL: r.URL, Header: c.header, Secret: c.secret})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Fire(t.Context(), example()); err != nil {
			t.Fatal(err)
		}
		all := r.all()
		header := c.header
		if header == "" {
			header = "Authorization"
		}
		if got := all[len(all)-1].header.Get(header); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestErrorsAreOneLineWithoutSecrets(t *testing.T) {
	r := newReceiver(t)
	closed := newReceiver(t)
	closed.Close()
	for _, c := range []struct {
		name    string
		status  int
		refused bool
	}{
		{"overloaded", 503, false}, {"too many", 429, false}, {"bad request", 400, true}, {"forbidden", 403, true}, {"no answer", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := r.URL
			if c.status == 0 {
				url = closed.URL
			}
			r.status, r.answer = c.status, "it\nwill not\x00 do"
			if c.status == 0 {
				r.status = 200
			}
			url = strings.Replace(url, "http://", "http://user:hidden1@", 1)
			for _, spec := range []string{"webhook:" + url + "/hidden2?t=hidden3", "alertmanager:" + url} {
				to, err := Parse(t.Context(), spec, ParseOptions{Webhook: WebhookOptions{Secret: "hidden4"}})
				if err != nil {
					t.Fatal(err)
				}
				err = to.Fire(t.Context(), example())
				if err == nil || strings.Contains(err.Error(), "hidden") || strings.ContainsAny(err.Error(), "\n\x00") || !strings.Contains(err.Error(), "127.0.0.1") {
					t.Errorf("got %v", err)
				}
				if errors.Is(err, ErrRefused) != c.refused {
					t.Errorf("refused: %v", err)
				}
			}
		})
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	other := newReceiver(t)
	r := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(r.Close)
	w, err := NewWebhook(WebhookOptions{URL: r.URL, Secret: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Fire(t.Context(), example()); !errors.Is(err, ErrRefused) || len(other.all()) != 0 {
		t.Errorf("got %v, %d requests elsewhere", err, len(other.all()))
	}
}

func TestAReceiverThatDoesNotAnswerIsGivenUp(t *testing.T) {
	block := make(chan struct{})
	r := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	t.Cleanup(r.Close)
	t.Cleanup(func() { close(block) })
	w, err := NewWebhook(WebhookOptions{URL: r.URL})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Fire(context.Background(), example()) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(4 * Limit):
		t.Fatal("it still waits")
	}
}

// failing is a receiver that takes nothing.
type failing struct{ err error }

func (f failing) Fire(context.Context, Alert) error    { return f.err }
func (f failing) Resolve(context.Context, Alert) error { return f.err }

func TestOneReceiverThatFailsDoesNotKeepTheAlertFromOthers(t *testing.T) {
	r := newReceiver(t)
	w, err := NewWebhook(WebhookOptions{URL: r.URL})
	if err != nil {
		t.Fatal(err)
	}
	first, second := errors.New("first"), errors.New("second")
	to := Several(failing{first}, w, failing{second})
	for _, deliver := range []func(context.Context, Alert) error{to.Fire, to.Resolve} {
		if err := deliver(t.Context(), example()); !errors.Is(err, first) || !errors.Is(err, second) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v", err)
		}
	}
	if len(r.all()) != 2 {
		t.Errorf("%d deliveries", len(r.all()))
	}
	if err := Several().Fire(t.Context(), example()); err != nil {
		t.Errorf("without receivers: %v", err)
	}
	if err := Several(w).Fire(t.Context(), Alert{}); err == nil {
		t.Error("an empty alert was sent")
	}
}

func TestNamesOfReceiversAreChecked(t *testing.T) {
	for _, good := range []string{
		"webhook:https://example.org/a:b?c#d", "alertmanager:http://am:9093/prefix", "sns:arn:aws:sns:eu-central-1:123456789012:alerts",
		"sns:arn:aws-cn:sns:cn-north-1:123456789012:alerts.fifo",
	} {
		if _, err := Parse(t.Context(), good, ParseOptions{}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "hidden", "https://example.org/hidden", "webhook:", "webhook:ftp://example.org/hidden", "webhook:http:///hidden", "webhook:http://ho st/hidden",
		"alertmanager:am:9093/hidden", "sns:hidden", "sns:arn:aws:sqs:us-east-1:1:hidden", "sns:arn:aws:sns::1:hidden", "mail:hidden",
		"sns:arn:aws:sns:us-east-1:123456789012:topic:0123-hidden",
	} {
		to, err := Parse(t.Context(), bad, ParseOptions{})
		if !errors.Is(err, ErrUsage) || to != nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v", bad, to, err)
		} else if strings.Contains(err.Error(), "hidden") && !strings.HasPrefix(bad, "sns:") {
			t.Errorf("%q is repeated: %v", bad, err)
		}
	}
	if _, err := ParseAll(t.Context(), []string{"webhook:http://a/", "nothing"}, ParseOptions{}); !errors.Is(err, ErrUsage) {
		t.Errorf("one of two: %v", err)
	}
	for _, opts := range []WebhookOptions{
		{URL: "http://a/", Secret: "a", SecretFile: "b"}, {URL: "http://a/", SecretFile: "/no/such/file"}, {URL: "http://a/", Secret: "a\nb"},
	} {
		if _, err := NewWebhook(opts); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
}

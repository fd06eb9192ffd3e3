package alert

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	localalertmanager "github.com/drover-io/drover/tools/alertmanager"
)

// held is what Alertmanager answers to GET /api/v2/alerts: those that hold.
type held struct {
	Labels       map[string]string
	Annotations  map[string]string
	GeneratorURL string
	StartsAt     time.Time
	EndsAt       time.Time
}

func holding(t *testing.T, url string) []held {
	t.Helper()
	resp, err := http.Get(url + "/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all []held
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// until polls.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// notified reads what Alertmanager's own receiver got, as "status severity" in order.
func notified(t *testing.T, r *receiver) []string {
	t.Helper()
	var all []string
	for _, request := range r.all() {
		var n struct {
			Alerts []struct {
				Status string
				Labels map[string]string
			}
		}
		if err := json.Unmarshal(request.body, &n); err != nil {
			t.Fatal(err)
		}
		for _, a := range n.Alerts {
			all = append(all, a.Status+" "+a.Labels["severity"])
		}
	}
	return all
}

func TestAlertmanagerHoldsOneAlertAndEndsIt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Alertmanager")
	}
	r := newReceiver(t)
	server := localalertmanager.ForTest(t, localalertmanager.Options{Receiver: r.URL})
	am, err := NewAlertmanager(AlertmanagerOptions{URL: server.URL(), Hold: time.Hour, Generator: "http://host/status", Labels: map[string]string{"team": "infra"}})
	if err != nil {
		t.Fatal(err)
	}
	a := example()
	a.At = time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	for _, severity := range []string{Warning, Warning, Critical} {
		a.Severity = severity
		if err := am.Fire(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		until(t, "only "+severity+" holds", func() bool {
			all := holding(t, server.URL())
			return len(all) == 1 && all[0].Labels["severity"] == severity
		})
		until(t, severity+" was notified", func() bool { return slices.Contains(notified(t, r), "firing "+severity) })
	}
	got := holding(t, server.URL())[0]
	if got.Labels["alertname"] != a.Name || got.Labels["cluster"] != "main" || got.Labels["team"] != "infra" || got.Labels["store"] != "s3://x" ||
		got.Annotations["summary"] != a.Summary || got.Annotations["value"] != "7200" || got.GeneratorURL != "http://host/status" || !got.StartsAt.Equal(a.At) {
		t.Errorf("holds %+v", got)
	}
	if left := time.Until(got.EndsAt); left < 30*time.Minute || left > 61*time.Minute {
		t.Errorf("it ends in %s", left)
	}
	a.At = time.Now().Add(time.Hour) // a clock that is ahead
	if err := am.Resolve(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	until(t, "none holds", func() bool { return len(holding(t, server.URL())) == 0 })
	until(t, "its end was notified", func() bool { return slices.Contains(notified(t, r), "resolved critical") })
	if all := notified(t, r); !slices.Contains(all, "resolved warning") {
		t.Errorf("notified: %v", all)
	}
	if err := am.Resolve(t.Context(), a); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestAnAlertThatAlertmanagerRefusesIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Alertmanager")
	}
	server := localalertmanager.ForTest(t, localalertmanager.Options{})
	am, err := NewAlertmanager(AlertmanagerOptions{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	a := example()
	a.Labels = map[string]string{"": "a label without a name"}
	if err := am.Fire(t.Context(), a); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := am.Fire(ctx, example()); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("one that hangs: %v", err)
	}
}

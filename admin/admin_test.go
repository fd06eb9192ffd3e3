package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type fixed Status

func (f fixed) Status(context.Context) Status { return Status(f) }

type stuck struct{}

func (stuck) Status(ctx context.Context) Status {
	<-ctx.Done()
	return Status{}
}

var testNow = time.Unix(1_700_000_100, 0)

func readyStatus() Status {
	return Status{
		Role: "replica", Cluster: "test", Timeline: 1, Sequence: 99, Offset: 7, Ready: true,
		Head: &Block{Number: 50, Hash: "0x01", Time: 1_700_000_090},
		Lag:  Lag{Frames: new(int64(3)), Blocks: new(int64(2)), Seconds: new(0.5)},
	}
}

func get(t *testing.T, source Source, path string) (int, string) {
	t.Helper()
	s := &Server{source: source, now: func() time.Time { return testNow }}
	w := httptest.NewRecorder()
	s.handler(Options{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestReadyzFollowsTheRoleAndTheRequestsOwnLimits(t *testing.T) {
	notReady := readyStatus()
	notReady.Ready, notReady.Reasons = false, []string{"catching up"}
	noReason := readyStatus()
	noReason.Ready = false
	unknown := readyStatus()
	unknown.Lag, unknown.Head = Lag{}, nil

	for _, test := range []struct {
		name   string
		status Status
		query  string
		code   int
		want   string
	}{
		{"ready", readyStatus(), "", 200, `"ready":true`},
		{"not ready", notReady, "", 503, "catching up"},
		{"not ready without a reason", noReason, "", 503, "not ready"},
		{"a generous limit does not make it ready", notReady, "?max_lag_blocks=100&max_age=1h", 503, "catching up"},
		{"lag within", readyStatus(), "?max_lag_blocks=2", 200, `"reasons":[]`},
		{"lag beyond", readyStatus(), "?max_lag_blocks=1", 503, "2 blocks behind, asked for at most 1"},
		{"lag unknown", unknown, "?max_lag_blocks=1000", 503, "not known"},
		{"age within, seconds", readyStatus(), "?max_age=10", 200, `"ready":true`},
		{"age within, duration", readyStatus(), "?max_age=0m10s", 200, `"ready":true`},
		{"age beyond", readyStatus(), "?max_age=9s", 503, "10s old"},
		{"age unknown", unknown, "?max_age=1h", 503, "not known"},
		{"both beyond", readyStatus(), "?max_age=1s&max_lag_blocks=0", 503, "max_age"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, body := get(t, fixed(test.status), "/readyz"+test.query)
			if code != test.code || !strings.Contains(body, test.want) {
				t.Errorf("got %d %s, want %d with %q", code, body, test.code, test.want)
			}
			var answer struct {
				Ready   *bool
				Reasons []string
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Ready == nil || answer.Reasons == nil {
				t.Errorf("not the promised JSON: %s (%v)", body, err)
			}
			if *answer.Ready != (code == 200) {
				t.Errorf("code %d and ready %v disagree", code, *answer.Ready)
			}
		})
	}
}

func TestBadQueryParameterGetsOneLine(t *testing.T) {
	for _, query := range []string{
		"max_lag_blocks=", "max_lag_blocks=-1", "max_lag_blocks=many", "max_lag_blocks=1.5",
		"max_age=", "max_age=-1s", "max_age=soon", "max_age=1&max_age=2", "maxlag=3", "max_age=%zz",
		"max_age=" + strings.Repeat("9", 4096),
	} {
		code, body := get(t, fixed(readyStatus()), "/readyz?"+query)
		if code != 400 || strings.Count(body, "\n") != 1 || len(body) > 200 {
			t.Errorf("%.40s: got %d %q, want 400 and one short line", query, code, body)
		}
	}
}

func TestStatusJSONKeepsItsNames(t *testing.T) {
	status := readyStatus()
	status.Lag.Seconds = nil
	_, body := get(t, fixed(status), "/status")
	want := `{"role":"replica","cluster":"test","timeline":1,"sequence":99,"offset":7,` +
		`"head":{"number":50,"hash":"0x01","time":1700000090},"safe":null,"finalized":null,` +
		`"lag":{"frames":3,"blocks":2,"seconds":null},"ready":true,"reasons":[]}` + "\n"
	if body != want {
		t.Errorf("got  %swant %s", body, want)
	}
}

func TestStuckRoleIsNeitherLiveNorReady(t *testing.T) {
	for _, path := range []string{"/livez", "/readyz", "/status"} {
		synctest.Test(t, func(t *testing.T) {
			if code, body := get(t, stuck{}, path); code != 503 || !strings.Contains(body, "did not say its status") {
				t.Errorf("%s: got %d %s", path, code, body)
			}
		})
	}
	if code, body := get(t, fixed(readyStatus()), "/livez"); code != 200 || !strings.Contains(body, `"live":true`) {
		t.Errorf("a healthy role: got %d %s", code, body)
	}
}

func TestServerServesUntilItsContextEnds(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "drover_test"}))
	server, err := New(Options{Addr: "127.0.0.1:0", Source: fixed(readyStatus()), Gatherer: registry})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	answer, err := http.Get("http://" + server.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK || !strings.Contains(string(body), "drover_test 0") {
		t.Errorf("/metrics: got %d %s", answer.StatusCode, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run after its context ended: %v", err)
	}
	if _, err := http.Get("http://" + server.Addr() + "/livez"); err == nil {
		t.Error("still answers after Run returned")
	}
}

func TestPortInUseIsOneLineThatNamesTheAddress(t *testing.T) {
	first, err := New(Options{Addr: "127.0.0.1:0", Source: fixed(readyStatus())})
	if err != nil {
		t.Fatal(err)
	}
	defer first.listener.Close()
	_, err = New(Options{Addr: first.Addr(), Source: fixed(readyStatus())})
	if err == nil {
		t.Fatal("a second server on the same port")
	}
	if text := err.Error(); !strings.Contains(text, first.Addr()) || strings.Contains(text, "\n") || !strings.Contains(text, "in use") {
		t.Errorf("got %q", text)
	}
}

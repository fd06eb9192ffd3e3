package changelog_test

import (
	"errors"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/prometheus/client_golang/prometheus"
)

// gauge reads one metric of the registry.
func gauge(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestAReaderFetchesAheadOnlySoFar(t *testing.T) {
	l, _ := newLog(t)
	const frames, size = 1000, 100_000
	p := l.NewPublisher(changelog.PublisherOptions{Compression: changelog.CompressionNone})
	for seq := uint64(1); seq <= frames; seq += 40 {
		var fs []changelog.Frame
		for i := range uint64(40) {
			fs = append(fs, changelog.SplitBatch(1, seq+i, 1, make([]byte, size), 0, time.Now())...)
		}
		if _, err := p.Publish(deadline(t), fs); err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewRegistry()
	watched, err := changelog.Open(deadline(t), changelog.Options{Brokers: l.Brokers(), Cluster: testCluster, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer watched.Close()
	// A second Log on the same registry shares its metrics.
	if again, err := changelog.Open(deadline(t), changelog.Options{Brokers: l.Brokers(), Cluster: testCluster, Registerer: reg}); err != nil {
		t.Fatal(err)
	} else {
		again.Close()
	}
	r := watched.NewReader(0)
	ctx := deadline(t)
	const name, limit = "drover_changelog_read_buffered_bytes", 32 << 20
	for gauge(t, reg, name) < limit {
		if ctx.Err() != nil {
			t.Fatal("the reader does not fetch ahead")
		}
		time.Sleep(time.Millisecond)
	}
	for range frames {
		if ahead := gauge(t, reg, name); ahead > limit+2*changelog.DefaultMaxMessageBytes {
			t.Fatalf("%.0f bytes ahead", ahead)
		}
		if _, err := r.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := gauge(t, reg, "drover_changelog_read_frames_total"); n != frames {
		t.Errorf("%.0f frames counted", n)
	}
	r.Close()
	if ahead := gauge(t, reg, name); ahead != 0 {
		t.Errorf("%.0f bytes ahead after the end", ahead)
	}
	if _, err := r.Next(ctx); !errors.Is(err, changelog.ErrClosed) {
		t.Error(err)
	}
}

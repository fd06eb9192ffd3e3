package master

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of a Master; gauges are read from it when they are asked for. Frames, produce latency and
// retries are changelog's metrics.
type metrics struct {
	batches, bytes prometheus.Counter
	outageSeconds  prometheus.Counter
}

// outageAfter is how long a produce request may take before the time counts as an outage of the brokers.
const outageAfter = 5 * time.Second

func newMetrics(registerer prometheus.Registerer, m *Master) *metrics {
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "drover_master_" + name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	gauge := func(name, help string, value func() float64) {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "drover_master_" + name, Help: help}, value))
	}
	ms := &metrics{
		batches:       counter("batches_total", "LevelDB batches that the brokers acknowledged."),
		bytes:         counter("bytes_total", "Bytes of these batches, before compression."),
		outageSeconds: counter("broker_outage_seconds_total", "Seconds of finished produce requests beyond the first five: the brokers were away."),
	}
	gauge("geth_up", "1 while geth runs and answers; a geth without IPC counts while its process runs.", func() float64 {
		if m.sourceAlive() {
			return 1
		}
		return 0
	})
	gauge("sequence", "Last LevelDB sequence that the brokers acknowledged.", func() float64 { return float64(m.sequence()) })
	gauge("timeline", "Timeline that this master writes.", func() float64 { return float64(m.currentTimeline()) })
	gauge("capture_lag_seconds", "Age of the oldest batch that is read and not acknowledged, 0 when there is none.",
		func() float64 { return m.captureLag().Seconds() })
	gauge("spool_bytes", "Bytes of journals kept until they are published.", func() float64 { return float64(m.spoolBytes()) })
	gauge("broker_outage_seconds", "Age of the produce request under way once it is beyond five seconds, else 0.",
		func() float64 { return m.outage().Seconds() })
	return ms
}

func (ms *metrics) published(batches, bytes int, took time.Duration) {
	ms.batches.Add(float64(batches))
	ms.bytes.Add(float64(bytes))
	if took > outageAfter {
		ms.outageSeconds.Add((took - outageAfter).Seconds())
	}
}

package replica

import (
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	frames      prometheus.Counter
	bytes       prometheus.Counter
	writeErrors prometheus.Counter
	headLatency prometheus.Histogram
}

func newMetrics(r *Replica, reg prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "drover", Subsystem: "replica", Name: name, Help: help}
	}
	m := &metrics{
		frames:      prometheus.NewCounter(prometheus.CounterOpts(opts("frames_total", "Frames read from the change log."))),
		bytes:       prometheus.NewCounter(prometheus.CounterOpts(opts("bytes_total", "Bytes of frames read from the change log."))),
		writeErrors: prometheus.NewCounter(prometheus.CounterOpts(opts("write_errors_total", "Writes that the database refused."))),
		headLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "drover", Subsystem: "replica", Name: "head_latency_seconds",
			Help:    "From the master's frame that carries a head until geth serves it here; needs clocks in step.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, fn func(*state) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), func() float64 { s := r.status(); return fn(&s) })
	}
	reg.MustRegister(m.frames, m.bytes, m.writeErrors, m.headLatency,
		gauge("sequence", "Last sequence applied.", func(s *state) float64 { return float64(s.at.Sequence) }),
		gauge("timeline", "Timeline of the position.", func(s *state) float64 { return float64(s.at.Timeline) }),
		gauge("offset", "Offset of the last frame applied, -1 while unknown.", func(s *state) float64 { return float64(s.at.Offset) }),
		gauge("lag_frames", "Frames between the position and the topic's end.", func(s *state) float64 {
			n, _ := s.behind()
			return float64(n)
		}),
		gauge("head_number", "Number of the head block.", func(s *state) float64 {
			if s.head != nil {
				return float64(s.head.Number.Uint64())
			}
			return float64(s.bulkNum)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("ready", "1 when ready for traffic.")), func() float64 {
			if len(r.reasons(time.Now())) == 0 {
				return 1
			}
			return 0
		}))
	return m
}

func (m *metrics) read(e *changelog.Entry) {
	m.frames.Inc()
	m.bytes.Add(float64(e.Size))
}

package changelog

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	publishedFrames prometheus.Counter
	publishedBytes  prometheus.Counter
	publishRetries  prometheus.Counter
	publishSeconds  prometheus.Histogram
	publishedOffset prometheus.Gauge
	foreignFrames   prometheus.Counter
	readFrames      prometheus.Counter
	readBytes       prometheus.Counter
	readBuffered    prometheus.Gauge
	highWater       prometheus.Gauge
	outages         prometheus.Counter
	inOutage        prometheus.Gauge
}

// newMetrics registers the package's metrics, or finds those that another Log on
// the same registry has registered.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		return register(r, &errs, prometheus.NewCounter(prometheus.CounterOpts{Name: "drover_changelog_" + name, Help: help}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return register(r, &errs, prometheus.NewGauge(prometheus.GaugeOpts{Name: "drover_changelog_" + name, Help: help}))
	}
	m := &metrics{
		publishedFrames: counter("published_frames_total", "Frames that the brokers acknowledged."),
		publishedBytes:  counter("published_bytes_total", "Bytes of acknowledged frames, before compression."),
		publishRetries:  counter("publish_retries_total", "Produce requests that were sent again."),
		publishSeconds: register(r, &errs, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "drover_changelog_publish_seconds", Help: "From the first try of a produce request to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		})),
		publishedOffset: gauge("published_offset", "Offset of the last acknowledged frame."),
		foreignFrames:   counter("foreign_frames_total", "Frames found between our own that this publisher had not just written."),
		readFrames:      counter("read_frames_total", "Frames fetched."),
		readBytes:       counter("read_bytes_total", "Bytes of fetched frames, after decompression."),
		readBuffered:    gauge("read_buffered_bytes", "Bytes fetched ahead and not yet consumed."),
		highWater:       gauge("high_water_offset", "Offset behind the topic's last message, as last seen."),
		outages:         counter("outages_total", "Times that the brokers stopped answering as they should."),
		inOutage:        gauge("in_outage", "Operations that are waiting for the brokers to answer again."),
	}
	return m, errors.Join(errs...)
}

func register[C prometheus.Collector](r prometheus.Registerer, errs *[]error, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if have, ok := there.ExistingCollector.(C); ok {
			return have
		}
	}
	if err != nil {
		*errs = append(*errs, fmt.Errorf("register metrics: %w", err))
	}
	return c
}

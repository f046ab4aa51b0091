package s3api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are labelled by operation and S3 error code: few values, and nothing
// that a client chooses.
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	in, out   *prometheus.CounterVec
	inFlight  prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "chatelaine", Subsystem: "s3", Name: name, Help: help,
		}, labels)
	}
	return &metrics{
		requests: counter("requests_total", "S3 requests answered.", "op", "code"),
		in:       counter("received_bytes_total", "Bytes of request bodies as they came.", "op"),
		out:      counter("sent_bytes_total", "Bytes of response bodies.", "op"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "chatelaine", Subsystem: "s3", Name: "request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120, 600},
		}, []string{"op"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "chatelaine", Subsystem: "s3", Name: "requests_in_flight", Help: "S3 requests under way.",
		}),
	}
}

func (m *metrics) observe(op, code string, took time.Duration, in, out int64) {
	m.requests.WithLabelValues(op, code).Inc()
	m.durations.WithLabelValues(op).Observe(took.Seconds())
	m.in.WithLabelValues(op).Add(float64(in))
	m.out.WithLabelValues(op).Add(float64(out))
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.durations, m.in, m.out, m.inFlight}
}

// Describe implements prometheus.Collector.
func (h *Handler) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range h.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (h *Handler) Collect(ch chan<- prometheus.Metric) {
	for _, c := range h.metrics.all() {
		c.Collect(ch)
	}
}

package localkafka

import (
	"context"
	"os"
	"testing"
)

// ForTest starts a cluster for one test (or, called with a suite's testing.TB, for several) and closes it when the test
// ends. When the test has failed, what the brokers logged last is logged with it.
func ForTest(tb testing.TB, opts Options) *Cluster {
	tb.Helper()
	c, err := New(opts)
	if err != nil {
		tb.Fatalf("local Kafka: %v", err)
	}
	tb.Cleanup(c.Close)
	c.QuoteTo(tb)
	if err := c.Start(context.Background()); err != nil {
		tb.Fatalf("local Kafka: %v", err)
	}
	return c
}

// QuoteTo logs what the brokers logged last when the test has failed at its end: for a cluster that several tests share.
func (c *Cluster) QuoteTo(tb testing.TB) {
	tb.Cleanup(func() {
		if !tb.Failed() {
			return
		}
		for _, b := range c.brokers {
			log, _ := os.ReadFile(c.LogFile(b.id))
			tb.Logf("broker %d (running: %v), last of its log:\n%s", b.id, b.live() != nil, lastLines(string(log), 15))
		}
	})
}

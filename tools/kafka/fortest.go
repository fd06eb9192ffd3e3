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
	tb.Cleanup(func() {
		if tb.Failed() {
			for _, b := range c.brokers {
				log, _ := os.ReadFile(c.LogFile(b.id))
				tb.Logf("broker %d (running: %v), last of its log:\n%s", b.id, b.live() != nil, lastLines(string(log), 15))
			}
		}
		c.Close()
	})
	if err := c.Start(context.Background()); err != nil {
		tb.Fatalf("local Kafka: %v", err)
	}
	return c
}

package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// Until calls probe every interval until it returns nil. When limit has passed
// it returns probe's last error.
func Until(ctx context.Context, limit, interval time.Duration, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // an error caused by the deadline would hide the reason
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, last)
		case <-time.After(interval):
		}
	}
}

// Ports of nodes lie below those of tools/kafka's brokers, and below those of outgoing connections: of these, one may
// take a port that was free a moment ago, and keep it.
const lowPort, highPort = 4000, 12000

var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(highPort - lowPort)) }

// FreePort is a TCP port on 127.0.0.1 that nobody listened on a moment ago, and that this process has not been given lately.
func FreePort() (port int, err error) {
	for range 200 {
		port = lowPort + int(nextPort.Add(1)%(highPort-lowPort))
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("no free port: %w", err)
}

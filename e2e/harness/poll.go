package harness

import (
	"context"
	"fmt"
	"net"
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

// FreePort is a TCP port on 127.0.0.1 that nobody listened on a moment ago.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

package localserver

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// TakePort leases a port of 127.0.0.1: want, or with 0 one below the range of outgoing connections, one of which could
// otherwise sit on it while its server is down. It stays the caller's until release.
func TakePort(want int) (port int, release func(), err error) {
	if want > 0 {
		release, err = claimPort(want)
		return want, release, err
	}
	const floor = 12000
	ceiling := firstEphemeralPort()
	if ceiling <= floor+1000 {
		ceiling = 65536 // a machine that uses nearly all: nothing better is to be had
	}
	for range 200 {
		port = floor + rand.IntN(ceiling-floor)
		if release, err = claimPort(port); err == nil {
			return port, release, nil
		}
	}
	return 0, func() {}, fmt.Errorf("no free port in %d-%d: %w", floor, ceiling, err)
}

// claimPort fails when somebody listens on the port or another server of these tools holds it.
func claimPort(port int) (release func(), err error) {
	release, ok := leasePort(port)
	if !ok {
		return func() {}, fmt.Errorf("port %d belongs to another local server", port)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		release()
		return func() {}, fmt.Errorf("port %d is in use: %w", port, err)
	}
	l.Close()
	return release, nil
}

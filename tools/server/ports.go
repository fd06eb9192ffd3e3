package localserver

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// takePort finds a port of 127.0.0.1 below the range of outgoing connections, one of which could otherwise sit on it
// while its server is down.
func takePort(want int) (addr string, release func(), err error) {
	if want > 0 {
		return claimPort(want)
	}
	const floor = 12000
	ceiling := firstEphemeralPort()
	if ceiling <= floor+1000 {
		ceiling = 65536 // a machine that uses nearly all: nothing better is to be had
	}
	for range 200 {
		if addr, release, err = claimPort(floor + rand.IntN(ceiling-floor)); err == nil {
			return addr, release, nil
		}
	}
	return "", func() {}, fmt.Errorf("no free port in %d-%d: %w", floor, ceiling, err)
}

func claimPort(port int) (addr string, release func(), err error) {
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	release, ok := leasePort(port)
	if !ok {
		return "", func() {}, fmt.Errorf("port %d belongs to another local server", port)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		release()
		return "", func() {}, fmt.Errorf("port %d is in use: %w", port, err)
	}
	l.Close()
	return addr, release, nil
}

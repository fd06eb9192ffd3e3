package localkafka

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// ports hands out ports of 127.0.0.1 that stay this cluster's until release, so that a killed broker finds its own
// port free again. They lie outside the range of outgoing connections, one of which could otherwise sit on the port
// of a broker that is down.
type ports struct {
	next   int // > 0: in order from here
	leases []func()
}

const portFloor = 12000

func (p *ports) take() (int, error) {
	if p.next > 0 {
		port := p.next
		p.next++
		return port, p.claim(port)
	}
	low, high := ephemeralPorts()
	ceiling := low
	if low <= portFloor+1000 {
		ceiling = 65536 // a machine that uses nearly all: nothing better is to be had
	}
	var last error
	for range 200 {
		port := portFloor + rand.IntN(ceiling-portFloor)
		if last = p.claim(port); last == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port in %d-%d (outgoing connections use %d-%d): %w", portFloor, ceiling, low, high, last)
}

// claim fails when somebody listens on the port or another cluster holds it.
func (p *ports) claim(port int) error {
	release, ok := leasePort(port)
	if !ok {
		return fmt.Errorf("port %d belongs to another local Kafka", port)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		release()
		return fmt.Errorf("port %d is in use: %w", port, err)
	}
	l.Close()
	p.leases = append(p.leases, release)
	return nil
}

func (p *ports) release() {
	for _, release := range p.leases {
		release()
	}
	p.leases = nil
}

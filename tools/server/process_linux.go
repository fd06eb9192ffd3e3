package localserver

import (
	"fmt"
	"net"
	"os"
)

// leasePort keeps other programs of this package from choosing the same port, also while its server is down. An
// abstract socket leaves nothing behind.
func leasePort(port int) (release func(), ok bool) {
	l, err := net.Listen("unix", fmt.Sprintf("@drover-localserver-%d", port))
	if err != nil {
		return nil, false
	}
	return func() { l.Close() }, true
}

// firstEphemeralPort is where the ports of outgoing connections begin.
func firstEphemeralPort() int {
	low := 32768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &low) // keeps the kernel's default when it cannot be read
	}
	return low
}

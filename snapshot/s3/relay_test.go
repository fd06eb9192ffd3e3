package s3store

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay is a TCP relay between store and server which cuts, holds or slows what passes. Its rules may be changed at any
// time.
type relay struct {
	listener net.Listener
	target   string
	all      sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool

	cuts   atomic.Int32 // how many connections may still be cut
	cutUp  atomic.Int64 // cut a connection after so many bytes from the client; 0 = never
	cutOut atomic.Int64 // cut a connection after so many bytes from the server
	rate   atomic.Int64 // bytes a second of each connection, from the client; 0 = all
	holds  atomic.Int32 // how many connections still to hold after cutUp bytes instead of cutting them
	fired  atomic.Int32 // cuts and holds that happened
	sent   atomic.Int64 // bytes from clients
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target, open: make(map[net.Conn]bool)}
	r.all.Go(r.accept)
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for c := range r.open {
			c.Close()
		}
		r.open = nil
		r.mu.Unlock()
		r.all.Wait()
	})
	return r
}

func (r *relay) url() string { return "http://" + r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			client.Close()
			continue
		}
		client.(*net.TCPConn).SetReadBuffer(64 << 10) // or the kernel takes what the rate is to hold back
		if !r.keep(client, server) {
			return
		}
		r.all.Go(func() { r.pass(server, client, &r.cutUp, true) })
		r.all.Go(func() { r.pass(client, server, &r.cutOut, false) })
	}
}

func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.open == nil {
			c.Close()
			continue
		}
		r.open[c] = true
	}
	return r.open != nil
}

func (r *relay) pass(to, from net.Conn, cut *atomic.Int64, up bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	passed := int64(0)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if limit := cut.Load(); limit > 0 && passed+int64(n) >= limit {
				if up && take(&r.holds) {
					r.fired.Add(1)
					io.Copy(io.Discard, to) // until the server or the client gives up
					return
				}
				if take(&r.cuts) {
					r.fired.Add(1)
					return
				}
			}
			if rate := r.rate.Load(); up && rate > 0 {
				time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
			passed += int64(n)
			if up {
				r.sent.Add(int64(n))
			}
		}
		if err != nil {
			return
		}
	}
}

// take counts n down if it is above zero.
func take(n *atomic.Int32) bool {
	for {
		old := n.Load()
		if old <= 0 {
			return false
		}
		if n.CompareAndSwap(old, old-1) {
			return true
		}
	}
}

package localkafka

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// silenceLimit bounds each read and write that nobody else bounds.
const silenceLimit = 5 * time.Second

// impatientConn gives a deadline to each read and write that has none. kafka-go v0.4.51 signs in without one (dialer.go
// and transport.go, authenticateSASL), so that a paused broker holds its caller for ever, whatever the context says.
type impatientConn struct {
	net.Conn
	readBound, writeBound atomic.Bool
}

func dialImpatient(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &impatientConn{Conn: conn}, nil
}

func (c *impatientConn) SetDeadline(t time.Time) error {
	c.readBound.Store(!t.IsZero())
	c.writeBound.Store(!t.IsZero())
	return c.Conn.SetDeadline(t)
}

func (c *impatientConn) SetReadDeadline(t time.Time) error {
	c.readBound.Store(!t.IsZero())
	return c.Conn.SetReadDeadline(t)
}

func (c *impatientConn) SetWriteDeadline(t time.Time) error {
	c.writeBound.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

func (c *impatientConn) Read(b []byte) (int, error) {
	if !c.readBound.Load() {
		if err := c.Conn.SetReadDeadline(time.Now().Add(silenceLimit)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *impatientConn) Write(b []byte) (int, error) {
	if !c.writeBound.Load() {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(silenceLimit)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

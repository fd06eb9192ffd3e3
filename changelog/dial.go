package changelog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// handshakeTimeout bounds a TLS handshake, which follows a dial of
	// dialTimeout at most.
	handshakeTimeout = 5 * time.Second
	// signInTimeout bounds each read and write of a sign-in: kafka-go v0.4.51
	// sets no deadline there (transport.go, authenticateSASL), so that a broker
	// which hangs would hold its caller for ever.
	signInTimeout = 3 * time.Second
)

// dialFunc connects to host:port.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dialer makes connections, encrypted if so configured.
type dialer struct {
	tcp dialFunc
	tls TLS
	log *slog.Logger

	mu   sync.Mutex
	last *tls.Config // what the files last said
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.tcp(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := &boundedConn{Conn: raw, address: address}
	if !d.tls.Enable {
		return conn, nil
	}
	config, err := d.config(address)
	if err == nil {
		secure := tls.Client(raw, config)
		if err = handshake(ctx, secure); err == nil {
			conn.Conn = secure
			return conn, nil
		}
		err = fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	raw.Close()
	return nil, err
}

func handshake(ctx context.Context, conn *tls.Conn) error {
	limited, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	return conn.HandshakeContext(limited)
}

// config reads the files again. When they cannot be read, since they are just
// being exchanged, the last configuration goes on.
func (d *dialer) config(address string) (*tls.Config, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	config, err := d.tls.load()
	switch {
	case err == nil:
		d.last = config
	case d.last == nil:
		return nil, err
	default:
		d.log.Warn("cannot read the TLS files again; going on with the last ones", "err", err)
		config = d.last
	}
	if err := d.tls.expired(config); err != nil {
		return nil, err
	}
	config = config.Clone()
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		config.ServerName = host
	}
	return config, nil
}

// boundedConn gives a deadline to each read and write that has none.
type boundedConn struct {
	net.Conn
	address               string
	readBound, writeBound atomic.Bool
	answered              atomic.Bool
	// silent: the other side has used up its time. kafka-go reads on after an
	// error, to discard the rest of the answer, and must not get the time again.
	silent atomic.Bool
}

// SetDeadline implements [net.Conn].
func (c *boundedConn) SetDeadline(t time.Time) error {
	c.readBound.Store(!t.IsZero())
	c.writeBound.Store(!t.IsZero())
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *boundedConn) SetReadDeadline(t time.Time) error {
	c.readBound.Store(!t.IsZero())
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements [net.Conn].
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	c.writeBound.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// Read implements [net.Conn].
func (c *boundedConn) Read(b []byte) (int, error) {
	ours := !c.readBound.Load()
	if c.silent.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	if ours {
		if err := c.Conn.SetReadDeadline(time.Now().Add(signInTimeout)); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(b)
	if !c.answered.Load() && n > 0 {
		c.answered.Store(true)
		if _, encrypted := c.Conn.(*tls.Conn); !encrypted && isAlert(b[:n]) {
			return 0, fmt.Errorf("%s: %w", c.address, errSpeaksTLS)
		}
	}
	if ours && errors.Is(err, os.ErrDeadlineExceeded) {
		c.silent.Store(true)
		err = fmt.Errorf("%s was silent for %s while signing in: %w", c.address, signInTimeout, err)
	}
	if err != nil && isTLS(err) {
		err = fmt.Errorf("%s: %w", c.address, err)
	}
	return n, err
}

// Write implements [net.Conn].
func (c *boundedConn) Write(b []byte) (int, error) {
	if !c.writeBound.Load() {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(signInTimeout)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// errSpeaksTLS: the other side answered our plaintext with a TLS alert.
var errSpeaksTLS = errors.New("the listener speaks TLS")

// isAlert recognises a TLS alert record (RFC 8446, 5.1): type 21, version 3.x.
// As the length of a Kafka answer it would be 350 MB.
func isAlert(b []byte) bool { return len(b) >= 2 && b[0] == 21 && b[1] == 3 }

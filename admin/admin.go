// Package admin serves the endpoints that every long-running role of Drover has on --admin.addr:
//
//	/livez    200 while the process can answer for its role, 503 when it cannot within five seconds
//	/readyz   200 or 503, with the reasons as JSON; ?max_lag_blocks= and ?max_age= tighten it for one request
//	/status   the whole Status as JSON
//	/metrics  Prometheus
//
// max_lag_blocks is a whole number of blocks, max_age the head block's greatest age: seconds ("30") or a Go duration
// ("1m30s"). A parameter that is malformed or not known gets 400 and one line of text, because a limit that is
// misspelt must not silently be no limit.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// statusLimit is how long a role may take for its Status before it counts as stuck.
	statusLimit = 5 * time.Second
	// shutdownLimit is how long requests under way may take once Run's context has ended.
	shutdownLimit = 2 * time.Second
)

// Options is what New needs.
type Options struct {
	// Addr is the address to listen on, host:port; port 0 takes a free one, see Server.Addr.
	Addr string
	// Source is the role that the endpoints speak for.
	Source Source
	// Gatherer holds the metrics of /metrics; without it that path is not served.
	Gatherer prometheus.Gatherer
	// Logger gets the server's own errors; the default discards them.
	Logger *slog.Logger
}

// Server serves the endpoints of one role.
type Server struct {
	listener net.Listener
	http     *http.Server
	source   Source
	now      func() time.Time
}

// New listens on Addr, so that a port in use is found before the role starts its work. The error is one line that
// names the address. Requests are answered from Run on.
func New(opts Options) (*Server, error) {
	if opts.Source == nil {
		return nil, errors.New("admin: no Source given")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("admin: cannot listen on %s (set another --admin.addr): %w", opts.Addr, rootCause(err))
	}
	s := &Server{listener: listener, source: opts.Source, now: time.Now}
	s.http = &http.Server{
		Handler:           s.handler(opts),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// rootCause strips the operation and address that net puts in front of the system's message: ours names them already.
func rootCause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// Addr returns the address that the server listens on, with the port it got.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run answers requests until ctx ends, then gives those under way two seconds. It returns nil after a clean end.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin: serving on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	if err := s.http.Shutdown(limited); err != nil {
		_ = s.http.Close()
	}
	<-served
	return nil
}

func (s *Server) handler(opts Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	if opts.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(opts.Gatherer, promhttp.HandlerOpts{
			ErrorLog: slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn),
		}))
	}
	return mux
}

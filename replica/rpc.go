package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
)

// servers are the RPC ports: HTTP and WebSocket, on one listener when their addresses are the same.
type servers struct {
	opts *Options
	log  *slog.Logger
	wrap func(http.Handler) http.Handler // around every handler

	mu     sync.Mutex
	open_  []*server
	httpAt string
	wsAt   string
}

type server struct {
	http *http.Server
	rpc  []*rpc.Server
	done chan struct{}
}

// drainLimit is how long requests under way may take once the ports close.
const drainLimit = 3 * time.Second

func newServers(opts *Options, log *slog.Logger, wrap func(http.Handler) http.Handler) *servers {
	return &servers{opts: opts, log: log, wrap: wrap}
}

func (s *servers) shared() bool {
	return s.opts.HTTP && s.opts.WS && s.opts.HTTPPort != 0 &&
		s.opts.HTTPPort == s.opts.WSPort && s.opts.HTTPAddr == s.opts.WSAddr
}

// checkPorts finds a port in use at the start rather than hours later, when the replica has caught up.
func (s *servers) checkPorts() error {
	check := func(on bool, flag, host string, port int) error {
		if !on || port == 0 {
			return nil
		}
		l, err := net.Listen("tcp", hostPort(host, port))
		if err != nil {
			return listenError(flag, host, port, err)
		}
		return l.Close()
	}
	return errors.Join(
		check(s.opts.HTTP, "--http", s.opts.HTTPAddr, s.opts.HTTPPort),
		check(s.opts.WS && !s.shared(), "--ws", s.opts.WSAddr, s.opts.WSPort))
}

func listenError(flag, host string, port int, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return fmt.Errorf("%w: cannot listen on %s (set another %s.addr or %s.port): %w", ErrUsage, hostPort(host, port), flag, flag, err)
}

// open starts to serve geth's methods.
func (s *servers) open(g *geth) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ws http.Handler
	var wsRPC *rpc.Server
	if s.opts.WS {
		srv, err := s.rpcServer(g, s.opts.WSAPI)
		if err != nil {
			return err
		}
		wsRPC, ws = srv, node.NewWSHandlerStack(srv.WebsocketHandler(s.opts.WSOrigins), nil)
	}
	if s.opts.HTTP {
		srv, err := s.rpcServer(g, s.opts.HTTPAPI)
		if err != nil {
			return err
		}
		handler := node.NewHTTPHandlerStack(srv, s.opts.HTTPCors, s.opts.HTTPVhosts, nil, false)
		rpcs := []*rpc.Server{srv}
		if s.shared() {
			handler, rpcs = either(ws, handler), append(rpcs, wsRPC)
		}
		if s.httpAt, err = s.listen("--http", s.opts.HTTPAddr, s.opts.HTTPPort, handler, rpcs); err != nil {
			return err
		}
	}
	switch {
	case s.shared():
		s.wsAt = s.httpAt
	case s.opts.WS:
		var err error
		if s.wsAt, err = s.listen("--ws", s.opts.WSAddr, s.opts.WSPort, ws, []*rpc.Server{wsRPC}); err != nil {
			return err
		}
	}
	s.log.Info("serving", "http", s.httpAt, "ws", s.wsAt)
	return nil
}

// either passes WebSocket upgrades to one handler and the rest to the other.
func either(ws, plain http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
			strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
			ws.ServeHTTP(w, r)
			return
		}
		plain.ServeHTTP(w, r)
	})
}

func (s *servers) rpcServer(g *geth, namespaces []string) (*rpc.Server, error) {
	srv := rpc.NewServer()
	srv.SetBatchLimits(s.opts.BatchRequestLimit, s.opts.BatchResponseMaxSize)
	allowed := make(map[string]bool)
	for _, n := range namespaces {
		allowed[n] = true
	}
	for _, api := range append(g.apis, refusedMethods(g.eth)...) {
		if !allowed[api.Namespace] {
			continue
		}
		if err := srv.RegisterName(api.Namespace, api.Service); err != nil {
			return nil, fmt.Errorf("register the %s methods: %w", api.Namespace, err)
		}
	}
	return srv, nil
}

func (s *servers) listen(flag, host string, port int, handler http.Handler, rpcs []*rpc.Server) (string, error) {
	listener, err := net.Listen("tcp", hostPort(host, port))
	if err != nil {
		return "", listenError(flag, host, port, err)
	}
	srv := &server{
		// geth's own time-outs (rpc.DefaultHTTPTimeouts).
		http: &http.Server{
			Handler:           s.wrap(handler),
			ReadTimeout:       rpc.DefaultHTTPTimeouts.ReadTimeout,
			ReadHeaderTimeout: rpc.DefaultHTTPTimeouts.ReadHeaderTimeout,
			WriteTimeout:      rpc.DefaultHTTPTimeouts.WriteTimeout,
			IdleTimeout:       rpc.DefaultHTTPTimeouts.IdleTimeout,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		},
		rpc: rpcs, done: make(chan struct{}),
	}
	s.open_ = append(s.open_, srv)
	go func() {
		defer close(srv.done)
		if err := srv.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("RPC port closed", "addr", listener.Addr(), "err", err)
		}
	}()
	return listener.Addr().String(), nil
}

// close lets requests under way finish, within drainLimit, and ends WebSockets. It may be called again.
func (s *servers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	for _, srv := range s.open_ {
		if err := srv.http.Shutdown(ctx); err != nil {
			srv.http.Close()
		}
		for _, r := range srv.rpc {
			r.Stop()
		}
		<-srv.done
	}
	s.open_, s.httpAt, s.wsAt = nil, "", ""
}

func (s *servers) addr(ws bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ws {
		return s.wsAt
	}
	return s.httpAt
}

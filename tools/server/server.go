package localserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/ops/process"
)

// Options describe a server.
type Options struct {
	// Name is what errors call it.
	Name string
	// Command is the process that serves on addr (127.0.0.1:PORT); its name, log and group are set here. Start, and each
	// Restart, calls it.
	Command func(addr string) process.Command
	// Dir is where its log goes, and stays; "" = a temporary directory that Close removes.
	Dir string
	// Port to serve on; 0 = a free one.
	Port int
	// Ready is asked until it returns nil; default: any answer to an HTTP request.
	Ready func(ctx context.Context, addr string) error
	// StartTimeout ends Start and Restart; default 60 s.
	StartTimeout time.Duration
}

// Server is one server process after another on the same port. All methods may be called from any goroutine.
type Server struct {
	opts    Options
	dir     string
	addr    string
	release func()

	mu     sync.Mutex
	proc   *process.Process // the last one; nil before the first
	closed bool
}

// ErrNotRunning says that the server has no process.
var ErrNotRunning = errors.New("the server is not running")

// Start starts the server and returns when it answers. The caller must call Close.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.StartTimeout == 0 {
		opts.StartTimeout = time.Minute
	}
	if opts.Ready == nil {
		opts.Ready = answersHTTP
	}
	s := &Server{opts: opts, dir: opts.Dir, release: func() {}}
	if err := s.prepare(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.Restart(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// ForTest starts the server for one test (or, called with a suite's testing.TB, for several) and closes it when the test
// ends. When the test has failed, what the server said last is logged with it.
func ForTest(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s, err := Start(context.Background(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	s.QuoteTo(tb)
	return s
}

// QuoteTo logs what the server said last when the test has failed at its end.
func (s *Server) QuoteTo(tb testing.TB) {
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("%s (running: %v) said last:\n%s", s.opts.Name, s.PID() != 0, s.lastLines(20))
		}
	})
}

func (s *Server) prepare() (err error) {
	if s.dir == "" {
		s.dir, err = os.MkdirTemp("", "drover-"+s.opts.Name+"-")
	} else {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err != nil {
		return err
	}
	port, release, err := TakePort(s.opts.Port)
	s.addr, s.release = fmt.Sprintf("127.0.0.1:%d", port), release
	return err
}

// Addr is where the server serves, running or not, as host:port.
func (s *Server) Addr() string { return s.addr }

// URL is http:// and Addr.
func (s *Server) URL() string { return "http://" + s.addr }

// LogFile is what all its processes printed.
func (s *Server) LogFile() string { return filepath.Join(s.dir, s.opts.Name+".log") }

// PID is the id of the process, 0 when there is none.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.Running() {
		return 0
	}
	return s.proc.Pid()
}

// Restart starts the server on the same port, after it has killed the process if there is one, and returns when it
// answers.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	p, err := s.launch()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.StartTimeout)
	defer cancel()
	for {
		err := s.opts.Ready(ctx, s.addr)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended as it started: %w", s.opts.Name, errors.Join(p.Err(), errors.New(p.Tail(5))))
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer on %s within %v (%w): %s", s.opts.Name, s.addr, s.opts.StartTimeout, err, s.lastLines(5))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) launch() (*process.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%s was closed", s.opts.Name)
	}
	c := s.opts.Command(s.addr)
	c.Name, c.Log, c.OwnGroup = s.opts.Name, s.dir, true
	p, err := process.Start(c)
	if err != nil {
		return nil, err
	}
	s.proc = p
	return p, nil
}

// Kill ends the process with SIGKILL and returns when it is gone. A killed server is not an error.
func (s *Server) Kill() error {
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.Kill()
}

// Pause stops the process (SIGSTOP): the kernel still accepts connections, and nobody answers.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume lets a paused process run on (SIGCONT).
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.Running() {
		return fmt.Errorf("%s: %w", s.opts.Name, ErrNotRunning)
	}
	return s.proc.Signal(sig)
}

// Exited is closed when the present process has ended.
func (s *Server) Exited() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.Done()
}

// Close ends the process, and removes the directory if Start made it. It may be called more than once.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.mu.Unlock()
	s.Kill() // fails for a process of another user only, which it is not
	s.release()
	if s.opts.Dir == "" && s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (s *Server) lastLines(n int) string {
	text, _ := os.ReadFile(s.LogFile())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func answersHTTP(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return err
}

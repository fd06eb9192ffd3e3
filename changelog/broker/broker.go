// Package broker is the embedded Kafka broker of `drover broker` and `drover
// dev`: franz-go's kfake, one node, with its data on disk. It is for development
// and tests; DESIGN.md says what it does not promise.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// DefaultListen is where the broker listens unless told otherwise.
const DefaultListen = "127.0.0.1:9092"

// ErrLocked means that another process uses the data directory.
var ErrLocked = errors.New("data directory is in use")

// Options say where the broker listens and keeps its data.
type Options struct {
	Listen  string // host:port; default DefaultListen; port 0 takes a free one
	DataDir string // created if absent; empty: in memory, lost at the end
	// Sync makes each acknowledgement wait for fsync. Without it a record
	// survives the process's death, not the machine's.
	Sync   bool
	Logger *slog.Logger
	// Kfake is appended to the broker's own options; tests set faults by it.
	Kfake []kfake.Opt
}

// Broker is a running broker. It accepts connections from New on.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	log     *slog.Logger
	lock    *os.File
	stop    chan struct{}

	mu     sync.Mutex
	closed bool // kfake answers no administrative call any more
}

const (
	segmentBytes = "33554432"
	// retainEvery: kfake's own timer does not run for topics that it loads.
	retainEvery = time.Minute
)

// New starts the broker: it loads the data directory and listens. Errors are one
// line: the address is taken, the directory is in use ([ErrLocked]) or damaged.
func New(o Options) (*Broker, error) {
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: want host:port: %w", o.Listen, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("--listen %q: port %q is not a number from 0 to 65535", o.Listen, port)
	}
	b := &Broker{log: o.Logger, stop: make(chan struct{})}
	opts := []kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(int(n)), kfake.ClusterID("drover-broker"), kfake.WithLogger(logger{o.Logger}),
		// kfake asks for 127.0.0.1 and advertises what the listener says.
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return net.Listen(network, net.JoinHostPort(host, port))
		}),
	}
	if o.DataDir != "" {
		if b.lock, err = lock(o.DataDir); err != nil {
			return nil, err
		}
		if err := recoverPartitions(o.DataDir); err != nil {
			b.unlock()
			return nil, err
		}
		// kfake reads each segment whole when it starts; smaller ones keep its
		// memory small then.
		opts = append(opts, kfake.DataDir(o.DataDir), kfake.BrokerConfigs(map[string]string{"log.segment.bytes": segmentBytes}))
	}
	if o.Sync {
		opts = append(opts, kfake.SyncWrites())
	}
	if b.cluster, err = kfake.NewCluster(append(opts, o.Kfake...)...); err != nil {
		b.unlock()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("cannot listen on %s: %w; another broker runs there, or choose another --listen", o.Listen, err)
		}
		return nil, fmt.Errorf("start the broker on %s with data in %q: %w", o.Listen, o.DataDir, err)
	}
	if o.DataDir != "" {
		// What was read to start is garbage now; a small broker shall be small.
		debug.FreeOSMemory()
	}
	b.addr = b.cluster.ListenAddrs()[0]
	go b.retain()
	b.log.Info("broker listens", "addr", b.addr, "data", o.DataDir)
	return b, nil
}

// Addr returns the host:port that clients are told to use.
func (b *Broker) Addr() string { return b.addr }

// Cluster gives tests kfake's control functions and faults.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Run serves until ctx ends, then closes the broker.
func (b *Broker) Run(ctx context.Context) error {
	<-ctx.Done()
	return b.Close()
}

// Close stops the broker and writes out what it holds. It may be called twice.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	close(b.stop)
	b.cluster.Close()
	b.unlock()
	b.log.Info("broker stopped", "addr", b.addr)
	return nil
}

// retain applies the topics' retention.
func (b *Broker) retain() {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.mu.Lock()
			if !b.closed {
				b.cluster.ApplyRetention()
			}
			b.mu.Unlock()
		case <-b.stop:
			return
		}
	}
}

func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("broker's data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "drover.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("broker's data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s belongs to a running broker; stop that one or choose another --data-dir", ErrLocked, dir)
	}
	return f, nil
}

func (b *Broker) unlock() {
	if b.lock != nil {
		b.lock.Close()
	}
}

// logger hands kfake's messages on.
type logger struct{ l *slog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	}
	if l.l.Enabled(context.Background(), to) {
		l.l.Log(context.Background(), to, fmt.Sprintf("kfake: "+format, args...))
	}
}

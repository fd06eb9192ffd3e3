package localkafka

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/drover-io/drover/ops/process"
)

// stopLimit is how long an orderly stop may take. A broker that cannot reach a majority of controllers would wait for
// minutes to hand over its partitions.
const stopLimit = 10 * time.Second

// Kill ends broker id with SIGKILL and returns when its process is gone. A killed broker is not an error.
func (c *Cluster) Kill(id int) error {
	p, err := c.process(id)
	if p == nil {
		return err
	}
	c.opts.Logger.Debug("broker killed", "broker", id)
	return p.Kill()
}

// Pause stops broker id with SIGSTOP and returns when none of its threads runs any more. Its ports still accept
// connections, as far as the kernel does that alone, and nobody answers.
func (c *Cluster) Pause(id int) error {
	p, err := c.process(id)
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("pause broker %d: %w", id, ErrNotRunning)
	}
	if err := p.Pause(); err != nil {
		return err
	}
	for !stopped(p.Pid()) {
		select {
		case <-p.Done():
			return fmt.Errorf("pause broker %d: %w", id, ErrNotRunning)
		case <-time.After(time.Millisecond):
		}
	}
	c.opts.Logger.Debug("broker paused", "broker", id)
	return nil
}

// Resume lets a paused broker run on (SIGCONT); it does no harm to one that runs.
func (c *Cluster) Resume(id int) error {
	p, err := c.process(id)
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("resume broker %d: %w", id, ErrNotRunning)
	}
	c.opts.Logger.Debug("broker resumed", "broker", id)
	return p.Resume()
}

// Stop ends broker id in order (SIGTERM): it hands over what it leads and closes its logs. After ten seconds, or when
// ctx ends, it is killed. A paused broker is resumed first.
func (c *Cluster) Stop(ctx context.Context, id int) error {
	p, err := c.process(id)
	if p == nil {
		return err
	}
	if err := p.Resume(); err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.Done():
		return nil
	case <-ctx.Done():
	case <-limit.C:
	}
	c.opts.Logger.Warn("broker did not stop in order and is killed", "broker", id, "after", stopLimit)
	return p.Kill()
}

// StopAll stops every broker in order, all at once, within the limit of Stop.
func (c *Cluster) StopAll(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, len(c.brokers))
	for i, b := range c.brokers {
		all.Go(func() { errs[i] = c.Stop(ctx, b.id) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Restart stops broker id if it runs, starts it on the same ports and data, and returns when it is ready. After Kill
// that takes at least the session timeout (6 s): the cluster must first see that the old process is dead.
func (c *Cluster) Restart(ctx context.Context, id int) error {
	if err := c.Stop(ctx, id); err != nil {
		return err
	}
	if err := c.Launch(id); err != nil {
		return err
	}
	return c.WaitReady(ctx, id)
}

// process returns nil without an error when broker id has none.
func (c *Cluster) process(id int) (*process.Process, error) {
	b, err := c.broker(id)
	if err != nil {
		return nil, err
	}
	return b.live(), nil
}

// Running reports whether broker id has a process; a paused one has.
func (c *Cluster) Running(id int) bool {
	p, err := c.process(id)
	return err == nil && p != nil
}

// PID is the process id of broker id, 0 when it is not running.
func (c *Cluster) PID(id int) int {
	if p, err := c.process(id); err == nil && p != nil {
		return p.Pid()
	}
	return 0
}

// IDs are the brokers, running or not.
func (c *Cluster) IDs() []int {
	ids := make([]int, 0, len(c.brokers))
	for _, b := range c.brokers {
		ids = append(ids, b.id)
	}
	return ids
}

// Dir is the directory of the cluster.
func (c *Cluster) Dir() string { return c.dir }

// DataDir is where broker id keeps its partitions, one directory for each ("TOPIC-0").
func (c *Cluster) DataDir(id int) string {
	return filepath.Join(c.dir, fmt.Sprintf("broker-%d", id), "data")
}

// LogFile is what broker id logs to.
func (c *Cluster) LogFile(id int) string {
	return filepath.Join(c.dir, fmt.Sprintf("broker-%d", id), "server.log")
}

// Files are the certificates that clients need.
func (c *Cluster) Files() TLSFiles { return c.tls }

// Users can sign in at SASLTLS.
func (c *Cluster) Users() []User { return c.opts.Users }

// Addr is where broker id serves listener l, as host:port; "" when there is no such broker or listener.
func (c *Cluster) Addr(id int, l Listener) string {
	b, err := c.broker(id)
	if err != nil || b.ports[string(l)] == 0 {
		return ""
	}
	return b.addr(string(l))
}

// Bootstrap is listener l of every broker, as host:port; nil when the cluster has no such listener.
func (c *Cluster) Bootstrap(l Listener) []string {
	var list []string
	for _, id := range c.IDs() {
		if addr := c.Addr(id, l); addr != "" {
			list = append(list, addr)
		}
	}
	return list
}

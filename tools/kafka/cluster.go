package localkafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-io/drover/ops/process"
)

// ErrNotRunning is returned for a broker that has no process.
var ErrNotRunning = errors.New("the broker is not running")

// Cluster is one or three brokers on loopback. Brokers are named by their Kafka node id, 1 to 3. All methods may be
// called from any goroutine.
type Cluster struct {
	opts    Options
	dir     string
	state   state
	tls     TLSFiles
	ports   ports
	brokers []*broker
	in      installation // empty until Start, or given by makeArchive
	unlock  func()

	mu     sync.Mutex
	closed bool
}

// state is what a later cluster in the same directory needs, as cluster.json.
type state struct {
	ID        string           `json:"id"`
	Secret    string           `json:"secret"` // password of internalUser
	Listeners []Listener       `json:"listeners"`
	Ports     []map[string]int `json:"ports"` // for each broker, by listener name
}

type broker struct {
	id    int
	dir   string
	ports map[string]int

	mu   sync.Mutex
	proc *process.Process // the last one; nil before the first
}

func (b *broker) addr(listener string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.ports[listener]))
}

// name is what its process, and the log of what the JVM itself says, are called.
func (b *broker) name() string { return fmt.Sprintf("broker-%d", b.id) }

// live returns the running process, or nil.
func (b *broker) live() *process.Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc == nil || !b.proc.Running() {
		return nil
	}
	return b.proc
}

// New takes ports and writes configuration and certificates below Options.Dir. It starts nothing.
// The caller must call Close.
func New(opts Options) (*Cluster, error) { return newCluster(opts) }

func newCluster(opts Options) (_ *Cluster, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, ports: ports{next: opts.FirstPort}, unlock: func() {}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if opts.Dir == "" {
		c.dir, err = os.MkdirTemp("", "drover-kafka-")
	} else if c.dir, err = filepath.Abs(opts.Dir); err == nil {
		err = os.MkdirAll(c.dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	unlock, err := lockFile(filepath.Join(c.dir, "lock"), false)
	if err != nil {
		return nil, fmt.Errorf("another local Kafka uses %s: %w", c.dir, err)
	}
	c.unlock = unlock
	if err := c.loadState(); err != nil {
		return nil, err
	}
	if c.tls, err = makeTLS(filepath.Join(c.dir, "tls")); err != nil {
		return nil, err
	}
	for i, ports := range c.state.Ports {
		c.brokers = append(c.brokers, &broker{id: i + 1, dir: filepath.Join(c.dir, fmt.Sprintf("broker-%d", i+1)), ports: ports})
	}
	for _, b := range c.brokers {
		if err := os.MkdirAll(b.dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(c.configFile(b), []byte(c.properties(b)), 0o600); err != nil {
			return nil, err
		}
	}
	return c, os.WriteFile(c.log4jFile(), log4jProperties, 0o644)
}

func (c *Cluster) configFile(b *broker) string { return filepath.Join(b.dir, "server.properties") }
func (c *Cluster) log4jFile() string           { return filepath.Join(c.dir, "log4j2.properties") }

// loadState takes ports, those of cluster.json when the directory was used before.
func (c *Cluster) loadState() error {
	file := filepath.Join(c.dir, "cluster.json")
	text, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(text, &c.state); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if len(c.state.Ports) != c.opts.Brokers || !slices.Equal(c.state.Listeners, c.opts.Listeners) {
			return fmt.Errorf("%s holds a cluster of %d brokers with listeners %v: ask for the same, or use another directory",
				c.dir, len(c.state.Ports), c.state.Listeners)
		}
		for _, byName := range c.state.Ports {
			for _, port := range byName {
				if err := c.ports.claim(port); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c.state = state{ID: randomID(), Secret: rand.Text(), Listeners: c.opts.Listeners}
	names := make([]string, 0, len(c.opts.Listeners)+2)
	for _, l := range c.opts.Listeners {
		names = append(names, string(l))
	}
	names = append(names, internal, controller)
	for range c.opts.Brokers {
		c.state.Ports = append(c.state.Ports, make(map[string]int))
	}
	for _, name := range names {
		for _, byName := range c.state.Ports {
			if byName[name], err = c.ports.take(); err != nil {
				return err
			}
		}
	}
	text, err = json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// randomID is a Kafka Uuid: 16 bytes in URL-safe base64 that must not begin with "-".
func randomID() string {
	var id [16]byte
	rand.Read(id[:])
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Start gets Apache Kafka if need be, formats a new directory, starts every broker and returns when each of them
// answers and knows all the others. A broker that ends before that is an error which quotes its log.
func (c *Cluster) Start(ctx context.Context) error {
	begin := time.Now()
	if c.in.java == "" {
		in, err := install(ctx, c.opts.Cache, c.opts.Logger)
		if err != nil {
			return err
		}
		c.in = in
	}
	if err := c.format(ctx); err != nil {
		return err
	}
	for _, b := range c.brokers {
		if err := c.Launch(b.id); err != nil {
			return err
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	c.opts.Logger.Info("kafka started", "brokers", len(c.brokers), "version", Version, "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// Launch starts the process of a broker that has none, on its own ports and data, and does not wait for it. It is
// what brings back a cluster whose majority is down: no broker becomes ready alone. See Restart.
func (c *Cluster) Launch(id int) error {
	b, err := c.broker(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("the local Kafka was closed")
	}
	if b.live() != nil {
		return fmt.Errorf("broker %d is running already", id)
	}
	proc, err := process.Start(process.Command{
		Name: b.name(), Path: c.in.java, Args: c.jvmFlags(b, "kafka.Kafka", c.configFile(b)),
		Dir: b.dir, Log: b.dir, OwnGroup: true,
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.proc = proc
	b.mu.Unlock()
	c.opts.Logger.Debug("broker launched", "broker", id, "pid", proc.Pid())
	return nil
}

func (c *Cluster) jvmFlags(b *broker, command ...string) []string {
	flags := []string{
		fmt.Sprintf("-Xmx%dm", c.opts.HeapMB), "-Xms32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-XX:-UsePerfData", "-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr", "-XX:+ExitOnOutOfMemoryError",
		"-Djava.awt.headless=true", "-Dfile.encoding=UTF-8",
		"-Dlog4j2.configurationFile=" + c.log4jFile(), "-Dlog4j2.disableJmx=true",
		"-Ddrover.kafka.log=" + c.LogFile(b.id),
	}
	if c.in.archive != "" {
		flags = append(flags, "-XX:SharedArchiveFile="+c.in.archive)
	}
	if command[0] == "kafka.Kafka" {
		flags = append(flags, c.opts.JVMFlags...)
	}
	return append(append(flags, "-cp", c.in.classpath()), command...)
}

// format writes what `kafka-storage format` would, for brokers that have no data. The tool runs once and not once for
// each broker, for it takes a second and writes the same but for the ids.
func (c *Cluster) format(ctx context.Context) error {
	const metaFile, bootstrapFile = "meta.properties", "bootstrap.checkpoint"
	var bootstrap []byte
	for _, b := range c.brokers {
		data := filepath.Join(b.dir, "data")
		if _, err := os.Stat(filepath.Join(data, metaFile)); err == nil {
			continue
		}
		if bootstrap == nil {
			if err := c.storageTool(ctx, b); err != nil {
				return err
			}
			var err error
			if bootstrap, err = os.ReadFile(filepath.Join(data, bootstrapFile)); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(data, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(data, bootstrapFile), bootstrap, 0o644); err != nil {
			return err
		}
		meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", c.state.ID, b.id, randomID())
		if err := os.WriteFile(filepath.Join(data, metaFile), []byte(meta), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) storageTool(ctx context.Context, b *broker) error {
	args := []string{"kafka.tools.StorageTool", "format", "--cluster-id", c.state.ID, "--config", c.configFile(b)}
	for _, u := range c.opts.Users {
		for _, hash := range []string{"256", "512"} {
			args = append(args, "--add-scram", fmt.Sprintf("SCRAM-SHA-%s=[name=%s,password=%s]", hash, u.Name, u.Password))
		}
	}
	out, err := exec.CommandContext(ctx, c.in.java, c.jvmFlags(b, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format %s: %w: %s", b.dir, err, complaint(string(out)))
	}
	return nil
}

// Close ends every broker with SIGKILL, returns when they are gone, and removes the directory if New made it. It may be
// called more than once. For data that is to be kept, Stop the brokers first: Close is safe without, but the next
// start then recovers their logs.
func (c *Cluster) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.mu.Unlock()
	var all sync.WaitGroup
	for _, b := range c.brokers {
		if p := b.live(); p != nil {
			all.Go(func() {
				if err := p.Kill(); err != nil {
					c.opts.Logger.Error("cannot kill broker", "broker", b.id, "error", err)
				}
			})
		}
	}
	all.Wait()
	c.ports.release()
	c.unlock()
	if c.opts.Dir == "" && c.dir != "" {
		if err := os.RemoveAll(c.dir); err != nil {
			c.opts.Logger.Warn("cannot remove the local Kafka's directory", "error", err)
		}
	}
}

func (c *Cluster) broker(id int) (*broker, error) {
	if id < 1 || id > len(c.brokers) {
		return nil, fmt.Errorf("no broker %d: there are 1 to %d", id, len(c.brokers))
	}
	return c.brokers[id-1], nil
}

// complaint is what a Java program said when it failed, without the stack and what else it printed before.
func complaint(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "\t") && strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "\n")
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

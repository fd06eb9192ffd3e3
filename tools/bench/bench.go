package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	localgeth "github.com/drover-io/drover/tools/geth"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// clusterName is that of every cluster here: each has a broker of its own.
const clusterName = "bench"

// bench holds what the figures share.
type bench struct {
	settings
	dir      string // scratch; removed at the end
	seed     string // geth datadir that holds the genesis block alone
	progress io.Writer

	mu       sync.Mutex
	procs    []*harness.Process
	clusters int // started so far
}

func newBench(ctx context.Context, s settings, progress io.Writer) (*bench, error) {
	b := &bench{settings: s, progress: progress}
	var err error
	if b.geth == "" {
		if b.geth, err = localgeth.Path(); err != nil {
			return nil, err
		}
	}
	if b.drover == "" {
		if b.drover, err = harness.DroverPath(); err != nil {
			return nil, err
		}
	}
	for _, path := range []*string{&b.geth, &b.drover} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
		if _, err := os.Stat(*path); err != nil {
			return nil, err
		}
	}
	if b.dir, err = os.MkdirTemp(b.scratch, "drover-bench-"); err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// prepare makes the chain and the database with its genesis block.
func (b *bench) prepare(ctx context.Context) error {
	if b.chain == "" {
		b.chain = filepath.Join(b.dir, "chain")
		b.say("generating a chain of %d blocks with %d transactions each", b.blocks, b.txs)
		if err := generate(ctx, b.chain, b.blocks, b.txs); err != nil {
			return err
		}
	}
	b.seed = filepath.Join(b.dir, "seed")
	_, err := b.timed(ctx, b.command("geth-init", b.geth, harness.InitArgs(b.seed, filepath.Join(b.chain, "genesis.json"))...))
	return err
}

// close ends every process that is left and removes the scratch directory.
func (b *bench) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for i := len(b.procs) - 1; i >= 0; i-- {
		errs = append(errs, b.procs[i].Kill())
	}
	harness.Cleanup()
	if b.keep {
		b.say("databases and logs are in %s", b.dir)
	} else {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

func (b *bench) describe() string {
	info, err := os.Stat(b.chainFile())
	if err != nil {
		return err.Error()
	}
	source := "given by --chain"
	if filepath.Dir(b.chain) == b.dir {
		source = fmt.Sprintf("%d blocks, %d transactions each, seed 1", b.blocks, b.txs)
	}
	return fmt.Sprintf("chain: %s (%.1f MB); %d runs", source, float64(info.Size())/1e6, b.runs)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func (b *bench) chainFile() string { return filepath.Join(b.chain, "chain.rlp") }

func (b *bench) command(name, path string, args ...string) harness.Command {
	return harness.Command{Name: name, Path: path, Args: args, Log: b.dir}
}

func (b *bench) start(c harness.Command) (*harness.Process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := harness.Start(c)
	if err == nil {
		b.procs = append(b.procs, p)
	}
	return p, err
}

// fresh is a copy of the seed.
func (b *bench) fresh(name string) (datadir string, err error) {
	datadir = filepath.Join(b.dir, name)
	if out, err := exec.Command("cp", "-a", b.seed, datadir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("copying %s: %w: %s", b.seed, err, out)
	}
	return datadir, nil
}

// drop removes a database that is no longer needed.
func (b *bench) drop(datadir string) error {
	if b.keep {
		return nil
	}
	return os.RemoveAll(datadir)
}

// importArgs are those of a `geth import` without the compaction of the whole database at its end, which is no part of
// importing blocks.
func (b *bench) importArgs(datadir string) []string {
	args := harness.StorageArgs(datadir)
	return append(args, "import", "--nocompaction", b.chainFile())
}

// cluster is where a change log is kept: the embedded broker, or Apache Kafka.
type cluster struct {
	broker *harness.Process    // nil with Apache Kafka
	kafka  *localkafka.Cluster // nil with the embedded broker
	addr   string              // as --kafka.brokers takes it
	data   string
}

// cpu is what the brokers have used so far.
func (c *cluster) cpu() (used time.Duration) {
	var pids []int
	if c.kafka == nil {
		pids = []int{c.broker.Pid()}
	} else {
		for _, id := range c.kafka.IDs() {
			pids = append(pids, c.kafka.PID(id))
		}
	}
	for _, pid := range pids {
		broker, _ := cpuOf(pid)
		used += broker
	}
	return used
}

// newCluster starts a broker and waits for its port.
func (b *bench) newCluster(ctx context.Context) (*cluster, error) {
	b.clusters++
	if b.kafka {
		return b.newKafka(ctx)
	}
	name := fmt.Sprintf("broker-%d", b.clusters)
	port, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	c := &cluster{addr: localhost(port), data: filepath.Join(b.dir, name)}
	if c.broker, err = b.start(b.command(name, b.drover, "broker", "--listen", c.addr, "--data-dir", c.data)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = harness.Until(ctx, 30*time.Second, 20*time.Millisecond, func(ctx context.Context) error {
		if !c.broker.Running() {
			cancel()
			return fmt.Errorf("the broker has ended:\n%s", c.broker.Tail(5))
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return c, err
}

// end stops the brokers and removes their data.
func (b *bench) end(c *cluster) error {
	if c.kafka != nil {
		c.kafka.Close()
		return b.drop(c.data)
	}
	_, err := c.broker.Stop(30 * time.Second)
	return errors.Join(err, b.drop(c.data))
}

func (b *bench) masterCommand(c *cluster, datadir string, gethArgs ...string) harness.Command {
	return b.command("master", b.drover, append(roleArgs("master", c, datadir, "--", b.geth), gethArgs...)...)
}

func (b *bench) replicaCommand(c *cluster, datadir string, args ...string) harness.Command {
	common := roleArgs("replica", c, datadir, "--cache", strconv.Itoa(cacheMB), "--ready.max-age", "0")
	return b.command("replica", b.drover, append(common, args...)...)
}

// roleArgs take any free port for the admin endpoints: the usual one may be somebody else's.
func roleArgs(role string, c *cluster, datadir string, args ...string) []string {
	common := []string{role, "--cluster", clusterName, "--kafka.brokers", c.addr, "--datadir", datadir, "--admin.addr", localhost(0)}
	return append(common, args...)
}

// cacheMB is --cache of nodes that serve.
const cacheMB = 256

func localhost(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// quiet writes out what earlier runs left in the page cache, so that no run pays for the one before.
func quiet() { syscall.Sync() }

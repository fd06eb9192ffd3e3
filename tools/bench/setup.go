package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

const clusterName = "bench"

// bench is one benchmark run: binaries, a chain, and where things are put.
type bench struct {
	geth, drover string
	dir          string
	runs         int
	blocks, txs  int
	lagFor       time.Duration
	rate         int // transactions a second
	started      int // names log files and datadirs
	results      []result
}

// prepare makes the chain, unless the directory has it from before.
func (b *bench) prepare() error {
	path := filepath.Join(b.chainDir(), chain.BlocksFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	progressf("generating %d blocks with %d transactions each", b.blocks, b.txs)
	// Timestamps close to now, so that a replica counts the head as recent.
	o := chain.Options{Seed: 1, Txs: b.txs, BlockTime: 1, GenesisTime: uint64(time.Now().Unix()) - uint64(b.blocks) - 60}
	return chain.Write(b.chainDir(), o, b.blocks, nil)
}

func (b *bench) chainDir() string {
	return filepath.Join(b.dir, fmt.Sprintf("chain-%dx%d", b.blocks, b.txs))
}
func (b *bench) genesisPath() string { return filepath.Join(b.chainDir(), chain.GenesisFile) }
func (b *bench) chainPath() string   { return filepath.Join(b.chainDir(), chain.BlocksFile) }

// stage is a fresh directory with a broker and a master datadir that holds the
// genesis block.
type stage struct {
	*bench
	dir    string
	master string
	port   int
	broker *harness.Process
}

func (b *bench) newStage(ctx context.Context) (*stage, error) {
	b.started++
	s := &stage{bench: b, dir: filepath.Join(b.dir, fmt.Sprintf("run-%d", b.started))}
	s.master = filepath.Join(s.dir, "master")
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := s.succeed(ctx, "init", b.geth, harness.InitArgs(s.master, b.genesisPath())...); err != nil {
		return nil, err
	}
	return s, s.startBroker(ctx)
}

func (s *stage) startBroker(ctx context.Context) (err error) {
	if s.port, err = harness.FreePort(); err != nil {
		return err
	}
	s.broker, err = harness.Start(s.command("broker", s.drover, "broker", "--listen", s.kafka(), "--data-dir", filepath.Join(s.dir, "broker")))
	if err != nil {
		return err
	}
	return harness.Until(ctx, 30*time.Second, 20*time.Millisecond, func(context.Context) error {
		if !strings.Contains(s.broker.Output(), "broker is up") {
			return fmt.Errorf("broker is not up:\n%s", s.broker.Tail(5))
		}
		return nil
	})
}

// close ends the broker and removes everything.
func (s *stage) close() {
	if s.broker != nil {
		_ = s.broker.Kill()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *stage) kafka() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *stage) command(name, path string, args ...string) harness.Command {
	return harness.Command{Name: name, Path: path, Args: args, Log: s.dir}
}

// masterArgs are drover's arguments around a geth command line.
func (s *stage) masterArgs(gethArgs []string, flags ...string) []string {
	args := append([]string{"master", "--cluster", clusterName, "--kafka.brokers", s.kafka(), "--datadir", s.master, "--admin.addr", ""}, flags...)
	return append(append(args, "--", s.geth), gethArgs...)
}

func (s *stage) replicaArgs(datadir string, flags ...string) []string {
	return append([]string{"replica", "--cluster", clusterName, "--kafka.brokers", s.kafka(), "--datadir", datadir, "--admin.addr", ""}, flags...)
}

// measured is what one process took.
type measured struct {
	wall  time.Duration
	total time.Duration // CPU time with ended children
	own   harness.Usage // CPU time and memory without children
}

// succeed runs a command to its end, which must be a good one.
func (s *stage) succeed(ctx context.Context, name, path string, args ...string) (m measured, err error) {
	began := time.Now()
	p, err := harness.Start(s.command(name, path, args...))
	if err != nil {
		return m, err
	}
	defer p.Kill()
	watched := make(chan harness.Usage, 1)
	go func() { watched <- p.Watch(20 * time.Millisecond) }()
	code, err := p.Wait(ctx)
	m.wall = time.Since(began)
	if err != nil || code != 0 {
		return m, fmt.Errorf("%s: exit code %d, %w\n%s", name, code, err, p.Tail(20))
	}
	m.total, m.own = p.CPU(), <-watched
	return m, nil
}

// copyAtRest makes a replica's datadir of the master's, which nobody has open.
func (s *stage) copyAtRest(name string) (string, error) {
	datadir := filepath.Join(s.dir, name)
	to := harness.Chaindata(datadir)
	if err := copyTree(harness.Chaindata(s.master), to); err != nil {
		return "", err
	}
	state, err := chaindata.Inspect(to)
	if err != nil {
		return "", err
	}
	return datadir, chaindata.WriteMarker(to, chaindata.Marker{Cluster: clusterName, Timeline: 1, Role: chaindata.RoleCopy, Sequence: state.Sequence})
}

func copyTree(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copying %s: %w: %s", from, err, out)
	}
	return nil
}

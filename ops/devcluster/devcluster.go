// Package devcluster runs a whole cluster on one machine: the embedded broker, a geth development chain under a master,
// and replicas booted from a live copy of the master's database. Each is a process of its own, started with the same
// command line that an operator would use, and seen over HTTP only.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/ops/process"
)

// Options of a development cluster.
type Options struct {
	// Drover is the path of the drover binary that the roles are started from.
	Drover string
	// Geth is the path of the geth binary.
	Geth string
	// DataDir holds everything: the broker's data, the master's and the replicas' databases, and the logs.
	DataDir string
	// Fresh removes the data of an earlier run first.
	Fresh bool
	// Replicas is how many replicas are started; 0 means 2.
	Replicas int
	// Period is the time between blocks, whole seconds; 0 means one second.
	Period time.Duration
	// Port is the RPC port of the first replica; the others take the ports above. Ports in use are passed over. 0 means 8545.
	Port int
	// Quiet leaves the example transactions out.
	Quiet bool
	// Out gets the status lines.
	Out io.Writer
	// Logger gets what goes wrong on the way.
	Logger *slog.Logger
}

// cluster is the name of the development cluster.
const cluster = "dev"

// startLimit is how long a role may take to come up; the first start of a geth on a slow disk is the long one.
const startLimit = 60 * time.Second

// The parts of an orderly end; together they stay below ten seconds.
const (
	replicaStopLimit = 3 * time.Second
	masterStopLimit  = 5 * time.Second
	brokerStopLimit  = time.Second
)

// marker is the file that makes a directory recognizable as ours before --fresh removes it.
const marker = "DROVER-DEV"

// DevCluster is a cluster on this machine.
type DevCluster struct {
	opts   Options
	client *client
	logs   string

	broker, master *process.Process
	replicas       []*process.Process
	nodes          []node // master first
	gethURL        string
	brokerAddr     string
}

// node is where a role is seen.
type node struct {
	name  string
	admin string // base URL of the admin endpoints
	rpc   string // URL of the JSON-RPC
}

// New checks the options and prepares the data directory.
func New(opts Options) (*DevCluster, error) {
	if opts.Replicas == 0 {
		opts.Replicas = 2
	}
	if opts.Period == 0 {
		opts.Period = time.Second
	}
	if opts.Period%time.Second != 0 {
		return nil, fmt.Errorf("the time between blocks is %s, but geth knows whole seconds only", opts.Period)
	}
	if opts.Port == 0 {
		opts.Port = 8545
	}
	var err error
	if opts.DataDir, err = filepath.Abs(opts.DataDir); err != nil {
		return nil, err
	}
	if err := prepareDataDir(opts.DataDir, opts.Fresh); err != nil {
		return nil, err
	}
	return &DevCluster{opts: opts, client: newClient(), logs: filepath.Join(opts.DataDir, "logs")}, nil
}

// prepareDataDir makes the data directory. It removes or uses only a directory that an earlier run made, or an empty one.
func prepareDataDir(dir string, fresh bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%s holds something else than a development cluster: name another --datadir", dir)
		}
		if fresh {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), []byte("made by drover dev; drover dev --fresh removes it\n"), 0o644)
}

// Run starts the cluster, prints a status line each second, and ends everything it started when ctx ends or a role fails.
func (d *DevCluster) Run(ctx context.Context) error {
	defer d.stop()
	if err := d.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.printEndpoints()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !d.opts.Quiet {
		sender := &traffic{client: d.client, gethURL: d.gethURL, logger: d.opts.Logger}
		done := make(chan struct{})
		go func() { defer close(done); sender.run(ctx) }()
		defer func() { cancel(); <-done }()
	}
	return d.watch(ctx)
}

// start brings the roles up in the order in which data flows.
func (d *DevCluster) start(ctx context.Context) error {
	ports, err := freePorts(3 + d.opts.Replicas)
	if err != nil {
		return err
	}
	d.brokerAddr = loopback(ports[0])
	d.sayf("starting the broker, the master with its geth, and %d replicas; logs are in %s", d.opts.Replicas, d.logs)
	if err := d.startBroker(ctx); err != nil {
		return err
	}
	if err := d.startMaster(ctx, ports[1], ports[2]); err != nil {
		return err
	}
	port := d.opts.Port
	for i := range d.opts.Replicas {
		name := fmt.Sprintf("replica%d", i+1)
		if port, err = nextFreePort(port); err != nil {
			return err
		}
		if err := d.startReplica(ctx, name, ports[3+i], port); err != nil {
			return err
		}
		port++
	}
	for i, replica := range d.replicas {
		if err := d.waitReady(ctx, replica, d.nodes[1+i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *DevCluster) startBroker(ctx context.Context) error {
	var err error
	d.broker, err = d.spawn("broker", d.opts.Drover, "broker",
		"--listen", d.brokerAddr, "--data-dir", filepath.Join(d.opts.DataDir, "broker"))
	if err != nil {
		return err
	}
	return waitFor(ctx, d.broker, startLimit, func(context.Context) error {
		connection, err := net.Dial("tcp", d.brokerAddr)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

func (d *DevCluster) startMaster(ctx context.Context, adminPort, gethPort int) error {
	datadir := filepath.Join(d.opts.DataDir, "master")
	d.gethURL = "http://" + loopback(gethPort)
	var err error
	d.master, err = d.spawn("master", d.opts.Drover, "master", "--cluster", cluster,
		"--kafka.brokers", d.brokerAddr, "--datadir", datadir, "--admin.addr", loopback(adminPort), "--",
		d.opts.Geth, "--dev", "--dev.period", strconv.Itoa(int(d.opts.Period/time.Second)), "--datadir", datadir,
		"--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "archive", "--cache", "256",
		"--ipcpath", filepath.Join(datadir, "geth.ipc"), "--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(gethPort),
		"--http.api", "eth,net,web3,txpool,debug", "--verbosity", "2")
	if err != nil {
		return err
	}
	master := node{name: "master", admin: "http://" + loopback(adminPort), rpc: d.gethURL}
	d.nodes = append(d.nodes, master)
	return waitFor(ctx, d.master, startLimit, func(ctx context.Context) error {
		var status admin.Status
		if err := d.client.get(ctx, master.admin+"/status", &status); err != nil {
			return err
		}
		if status.Head == nil || status.Head.Number == 0 {
			return errors.New("geth has made no block yet")
		}
		return nil
	})
}

// startReplica boots a replica: from its own database when an earlier run left one, else from a live copy of the master's.
func (d *DevCluster) startReplica(ctx context.Context, name string, adminPort, port int) error {
	datadir := filepath.Join(d.opts.DataDir, name)
	target := filepath.Join(datadir, "geth", "chaindata")
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		source := filepath.Join(d.opts.DataDir, "master", "geth", "chaindata")
		if _, err := chaindata.Copy(ctx, source, target, chaindata.CopyOptions{}); err != nil {
			return fmt.Errorf("copy the master's database for %s: %w", name, err)
		}
	}
	replica, err := d.spawn(name, d.opts.Drover, "replica", "--cluster", cluster, "--kafka.brokers", d.brokerAddr,
		"--datadir", datadir, "--admin.addr", loopback(adminPort), "--cache", "256",
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(port), "--http.api", "eth,net,web3,debug",
		"--ws", "--ws.addr", "127.0.0.1", "--ws.port", strconv.Itoa(port), "--ws.api", "eth,net,web3", "--ws.origins", "*")
	if err != nil {
		return err
	}
	d.replicas = append(d.replicas, replica)
	d.nodes = append(d.nodes, node{name: name, admin: "http://" + loopback(adminPort), rpc: "http://" + loopback(port)})
	return nil
}

func (d *DevCluster) waitReady(ctx context.Context, replica *process.Process, at node) error {
	return waitFor(ctx, replica, startLimit, func(ctx context.Context) error {
		return d.client.get(ctx, at.admin+"/readyz", &struct{}{})
	})
}

// stop ends what runs, against the direction of the data: readers first, so that nobody loses the source under their feet.
func (d *DevCluster) stop() {
	if d.broker == nil {
		return
	}
	d.sayf("stopping")
	done := make(chan struct{})
	for _, replica := range d.replicas {
		go func() { d.end(replica, replicaStopLimit); done <- struct{}{} }()
	}
	for range d.replicas {
		<-done
	}
	if d.master != nil {
		d.end(d.master, masterStopLimit)
	}
	d.end(d.broker, brokerStopLimit)
	d.sayf("stopped; `drover dev` goes on from %s, `drover dev --fresh` starts over", d.opts.DataDir)
}

// end ends one role; one that does not end in time is killed, which is worth a word: it loses nothing, but takes longer to
// start next time.
func (d *DevCluster) end(p *process.Process, limit time.Duration) {
	if _, err := p.Stop(limit); err != nil {
		d.opts.Logger.Warn("a role did not end in time", "err", err)
	}
}

func (d *DevCluster) sayf(format string, args ...any) { fmt.Fprintf(d.opts.Out, format+"\n", args...) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds ports that nobody listens on, each another.
func freePorts(count int) ([]int, error) {
	ports := make([]int, count)
	for i := range ports {
		listener, err := net.Listen("tcp", loopback(0))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// nextFreePort finds the first free port from the given one on, so that people find the RPC where they expect it.
func nextFreePort(from int) (int, error) {
	for port := from; port < min(from+100, 1<<16); port++ {
		listener, err := net.Listen("tcp", loopback(port))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("no free port from %d on: name another with --http.port", from)
}

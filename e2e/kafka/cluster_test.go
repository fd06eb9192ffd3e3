//go:build soak

package kafkae2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

const clusterName = "test"

var topic = changelog.TopicName(clusterName)

// cluster is a Kafka and the datadirs of one master and its replicas.
type cluster struct {
	kafka  *localkafka.Cluster
	dir    string
	geth   string // executable of the master's geth
	master string // geth datadir
}

// newCluster starts Kafka and makes a master's datadir with the chain's genesis block.
func newCluster(t *testing.T, blocks, txs int, options localkafka.Options) (*cluster, *fixture) {
	t.Helper()
	c := &cluster{dir: workdir(t), geth: must(harness.GethPath())(t)}
	must(harness.DroverPath())(t) // built before brokers have to wait for it
	f := generate(t, c.dir, blocks, txs)
	c.master = filepath.Join(c.dir, "master")
	c.initialise(t, f)
	options.StartTimeout = 3 * time.Minute // for a machine that runs other tests meanwhile
	c.kafka = localkafka.ForTest(t, options)
	return c, f
}

func (c *cluster) initialise(t *testing.T, f *fixture) {
	t.Helper()
	succeed(t, 2*time.Minute, harness.Command{Name: "geth-init", Path: c.geth, Args: harness.InitArgs(c.master, f.genesis), Log: c.dir})
}

func (c *cluster) brokers() string { return strings.Join(c.kafka.Bootstrap(localkafka.Plaintext), ",") }

func (c *cluster) openLog(t *testing.T) *changelog.Log {
	t.Helper()
	log := must(changelog.Open(t.Context(), changelog.Options{Brokers: c.kafka.Bootstrap(localkafka.Plaintext), Cluster: clusterName}))(t)
	t.Cleanup(func() { log.Close() })
	return log
}

// at is the cluster with another datadir for its master, and a directory of its own for logs.
func (c *cluster) at(t *testing.T, datadir string) *cluster {
	t.Helper()
	other := *c
	other.master, other.dir = datadir, workdir(t)
	return &other
}

func (c *cluster) command(t *testing.T, name string, args ...string) harness.Command {
	t.Helper()
	return harness.Command{Name: name, Path: must(harness.DroverPath())(t), Args: args, Log: c.dir}
}

// masterCommand is drover master around a geth command line.
func (c *cluster) masterCommand(t *testing.T, adminPort int, gethArgs []string, flags ...string) harness.Command {
	t.Helper()
	args := append([]string{"master", "--cluster", clusterName, "--kafka.brokers", c.brokers(), "--datadir", c.master,
		"--admin.addr", localhost(adminPort)}, flags...)
	return c.command(t, "master", append(append(args, "--", c.geth), gethArgs...)...)
}

func (c *cluster) replicaCommand(t *testing.T, datadir string, adminPort int, flags ...string) harness.Command {
	t.Helper()
	// The tests' chains have the clock of their blocks, which may stand still.
	args := append([]string{"replica", "--cluster", clusterName, "--kafka.brokers", c.brokers(), "--datadir", datadir,
		"--admin.addr", localhost(adminPort), "--cache", "128", "--ready.max-age", "0s"}, flags...)
	return c.command(t, filepath.Base(datadir), args...)
}

// sync runs a replica until it has applied everything.
func (c *cluster) sync(t *testing.T, datadir string) {
	t.Helper()
	succeed(t, 3*time.Minute, c.replicaCommand(t, datadir, port(t), "--until-synced"))
}

// copyAtRest makes a replica's datadir of the master's, which nobody has open, on the timeline.
func (c *cluster) copyAtRest(t *testing.T, name string, timeline uint64) string {
	t.Helper()
	datadir := filepath.Join(c.dir, name)
	to := harness.Chaindata(datadir)
	copyTree(t, harness.Chaindata(c.master), to)
	state := must(chaindata.Inspect(to))(t)
	marker := chaindata.Marker{Cluster: clusterName, Timeline: timeline, Role: chaindata.RoleCopy, Sequence: state.Sequence}
	if err := chaindata.WriteMarker(to, marker); err != nil {
		t.Fatal(err)
	}
	return datadir
}

// node is a running master or replica.
type node struct {
	*harness.Process
	harness.Endpoints
	engine    *harness.Engine // of a master that is driven by the Engine API
	adminPort int
}

func newNode(t *testing.T) *node {
	t.Helper()
	return &node{Endpoints: must(harness.NewEndpoints())(t), adminPort: port(t)}
}

// startMaster starts a master around a geth that is driven by the Engine API, and waits for its RPC.
func (c *cluster) startMaster(t *testing.T, flags ...string) *node {
	t.Helper()
	n := newNode(t)
	jwt := filepath.Join(c.dir, "jwt")
	secret := must(harness.WriteJWT(jwt))(t)
	n.Process = start(t, c.masterCommand(t, n.adminPort, harness.NodeArgs(c.master, jwt, n.Endpoints), flags...))
	n.waitRPC(t)
	n.engine = must(harness.DialEngine(t.Context(), n.EngineURL(), secret))(t)
	t.Cleanup(n.engine.Close)
	return n
}

// startDevMaster starts a master around a developer chain with a block each second.
func (c *cluster) startDevMaster(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.Process = start(t, c.masterCommand(t, n.adminPort, harness.DevArgs(c.master, n.Endpoints, time.Second)))
	n.waitRPC(t)
	return n
}

func (n *node) waitRPC(t *testing.T) {
	t.Helper()
	if err := harness.Ready(t.Context(), n.Process, n.Endpoints, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}

// startReplica starts a replica that serves RPC. It does not wait: before its first readiness, it does not listen.
func (c *cluster) startReplica(t *testing.T, datadir string) *node {
	t.Helper()
	n := newNode(t)
	n.Process = start(t, c.replicaCommand(t, datadir, n.adminPort,
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(n.HTTPPort), "--http.api", harness.RPCNamespaces))
	return n
}

// stop ends the node by SIGTERM, which must end it well.
func (n *node) stop(t *testing.T) {
	t.Helper()
	code, err := n.Process.Stop(2 * time.Minute)
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d after SIGTERM, %v\n%s", n.Name, code, err, n.Tail(20))
	}
}

// geth is the master's only child.
func (n *node) geth(t *testing.T) int {
	t.Helper()
	children := must(n.Children())(t)
	if len(children) != 1 {
		t.Fatalf("the master has the children %v", children)
	}
	return children[0]
}

func (n *node) get(ctx context.Context, path string, out any) error {
	if !n.Running() {
		return fmt.Errorf("%s has ended:\n%s", n.Name, n.Tail(10))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+localhost(n.adminPort)+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s: HTTP %d: %s", n.Name, path, response.StatusCode, body)
	}
	return json.Unmarshal(body, out)
}

func (n *node) status(t *testing.T) (s admin.Status) {
	t.Helper()
	until(t, time.Minute, func(ctx context.Context) error { return n.get(ctx, "/status", &s) })
	return s
}

func (n *node) height(ctx context.Context) (uint64, error) {
	var height hexutil.Uint64
	err := harness.Ask(ctx, n.HTTP(), &height, "eth_blockNumber")
	return uint64(height), err
}

// rises waits until the node's head is n blocks higher than now.
func (n *node) rises(t *testing.T, by uint64) {
	t.Helper()
	from := must(n.height(t.Context()))(t)
	until(t, time.Minute, func(ctx context.Context) error {
		height, err := n.height(ctx)
		if err == nil && height < from+by {
			err = fmt.Errorf("%s is at block %d, was at %d", n.Name, height, from)
		}
		return err
	})
}

// follows waits until the replica has reached the head that the master has now.
func follows(t *testing.T, master, replica *node) {
	t.Helper()
	want := must(master.height(t.Context()))(t)
	until(t, 2*time.Minute, func(ctx context.Context) error {
		height, err := replica.height(ctx)
		if !replica.Running() {
			return fmt.Errorf("%s has ended:\n%s", replica.Name, replica.Tail(10))
		}
		if err == nil && height < want {
			err = fmt.Errorf("%s is at block %d, the master was at %d", replica.Name, height, want)
		}
		return err
	})
}

// settles waits until geth's transaction index, which each node builds on its own, covers the chain: it leaves a key behind.
func (n *node) settles(t *testing.T) {
	t.Helper()
	until(t, time.Minute, func(ctx context.Context) error {
		var syncing any
		if err := harness.Ask(ctx, n.HTTP(), &syncing, "eth_syncing"); err != nil {
			return err
		}
		if syncing != false {
			return fmt.Errorf("%s: eth_syncing: %v", n.Name, syncing)
		}
		return nil
	})
}

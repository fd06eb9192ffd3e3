package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
)

// cluster is a broker and the datadirs of one master and its replicas.
type cluster struct {
	name       string
	dir        string
	brokerPort int
	broker     *harness.Process
	master     string // geth datadir
}

// newCluster starts a broker and makes a master datadir with the genesis block.
func newCluster(t *testing.T, f *fixture) *cluster {
	t.Helper()
	c := &cluster{name: "test", dir: workdir(t), brokerPort: port(t)}
	c.master = filepath.Join(c.dir, "master")
	c.startBroker(t)
	if f != nil {
		f.initialise(t, c.master)
	}
	return c
}

func (c *cluster) startBroker(t *testing.T) {
	t.Helper()
	c.broker = start(t, c.command("broker", drover(t), "broker", "--listen", localhost(c.brokerPort), "--data-dir", filepath.Join(c.dir, "broker")))
	until(t, time.Minute, func(ctx context.Context) error {
		return dial(ctx, c.brokerPort)
	})
}

func (c *cluster) command(name, path string, args ...string) harness.Command {
	return harness.Command{Name: name, Path: path, Args: args, Log: c.dir}
}

// masterCommand is drover master around a geth command line.
func (c *cluster) masterCommand(t *testing.T, adminPort int, gethArgs []string, flags ...string) harness.Command {
	t.Helper()
	args := append([]string{"master", "--cluster", c.name, "--kafka.brokers", localhost(c.brokerPort), "--datadir", c.master,
		"--admin.addr", localhost(adminPort)}, flags...)
	return c.command("master", drover(t), append(append(args, "--", geth(t)), gethArgs...)...)
}

// importUnderCapture runs `geth import` below a master to its end.
func (c *cluster) importUnderCapture(t *testing.T, limit time.Duration, chain string) {
	t.Helper()
	succeed(t, limit, c.masterCommand(t, port(t), harness.ImportArgs(c.master, chain)))
}

// copyAtRest makes a replica's datadir of the master's, which nobody has open
// and which stands at its sequence on the timeline.
func (c *cluster) copyAtRest(t *testing.T, name string, timeline uint64) string {
	t.Helper()
	datadir := filepath.Join(c.dir, name)
	from, to := harness.Chaindata(c.master), harness.Chaindata(datadir)
	copyTree(t, from, to)
	state := must(chaindata.Inspect(to))(t)
	marker := chaindata.Marker{Cluster: c.name, Timeline: timeline, Role: chaindata.RoleCopy, Sequence: state.Sequence}
	if err := chaindata.WriteMarker(to, marker); err != nil {
		t.Fatal(err)
	}
	return datadir
}

func (c *cluster) replicaCommand(t *testing.T, datadir string, adminPort int, flags ...string) harness.Command {
	t.Helper()
	args := append([]string{"replica", "--cluster", c.name, "--kafka.brokers", localhost(c.brokerPort), "--datadir", datadir,
		"--admin.addr", localhost(adminPort), "--cache", "128"}, flags...)
	return c.command(filepath.Base(datadir), drover(t), args...)
}

// sync runs a replica until it has applied everything.
func (c *cluster) sync(t *testing.T, limit time.Duration, datadir string) {
	t.Helper()
	succeed(t, limit, c.replicaCommand(t, datadir, port(t), "--until-synced"))
}

// node is a running master or replica.
type node struct {
	*harness.Process
	harness.Endpoints
	engine    *harness.Engine // masters only
	adminPort int
}

// startMaster starts a master around a geth that is driven by the Engine API,
// and waits for its RPC.
func (c *cluster) startMaster(t *testing.T, flags ...string) *node {
	t.Helper()
	n := &node{Endpoints: endpoints(t), adminPort: port(t)}
	jwt := filepath.Join(c.dir, "jwt")
	secret := must(harness.WriteJWT(jwt))(t)
	n.Process = start(t, c.masterCommand(t, n.adminPort, harness.NodeArgs(c.master, jwt, n.Endpoints), flags...))
	if err := harness.Ready(t.Context(), n.Process, n.Endpoints, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	n.engine = must(harness.DialEngine(t.Context(), n.EngineURL(), secret))(t)
	t.Cleanup(n.engine.Close)
	return n
}

// startDevMaster starts a master around a developer chain.
func (c *cluster) startDevMaster(t *testing.T, period time.Duration, flags ...string) *node {
	t.Helper()
	n := &node{Endpoints: endpoints(t), adminPort: port(t)}
	n.Process = start(t, c.masterCommand(t, n.adminPort, harness.DevArgs(c.master, n.Endpoints, period), flags...))
	if err := harness.Ready(t.Context(), n.Process, n.Endpoints, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	return n
}

// startReplica starts a replica that serves RPC. It does not wait.
func (c *cluster) startReplica(t *testing.T, datadir string, flags ...string) *node {
	t.Helper()
	n := &node{Endpoints: endpoints(t), adminPort: port(t)}
	rpc := []string{
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(n.HTTPPort), "--http.api", harness.RPCNamespaces,
		"--ws", "--ws.addr", "127.0.0.1", "--ws.port", strconv.Itoa(n.WSPort), "--ws.api", harness.RPCNamespaces,
	}
	n.Process = start(t, c.replicaCommand(t, datadir, n.adminPort, append(rpc, flags...)...))
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

func (n *node) status(ctx context.Context) (admin.Status, error) {
	var s admin.Status
	body, code, err := fetch(ctx, n.adminPort, "/status")
	if err != nil {
		return s, err
	}
	if code != http.StatusOK {
		return s, fmt.Errorf("/status: HTTP %d", code)
	}
	return s, json.Unmarshal(body, &s)
}

// ready is nil when /readyz answers 200.
func (n *node) ready(ctx context.Context) error {
	if !n.Running() {
		return fmt.Errorf("%s has ended:\n%s", n.Name, n.Tail(10))
	}
	body, code, err := fetch(ctx, n.adminPort, "/readyz")
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("/readyz: HTTP %d: %s", code, body)
	}
	return nil
}

func (n *node) waitReady(t *testing.T, limit time.Duration) { t.Helper(); until(t, limit, n.ready) }

// sameHead waits until the replica's RPC shows the master's head.
func sameHead(t *testing.T, limit time.Duration, master, replica *node) {
	t.Helper()
	until(t, limit, func(ctx context.Context) error {
		var a, b struct{ Hash, Number string }
		if err := harness.Ask(ctx, master.HTTP(), &a, "eth_getBlockByNumber", "latest", false); err != nil {
			return err
		}
		if err := harness.Ask(ctx, replica.HTTP(), &b, "eth_getBlockByNumber", "latest", false); err != nil {
			if !replica.Running() {
				return fmt.Errorf("%s has ended:\n%s", replica.Name, replica.Tail(10))
			}
			return err
		}
		if a != b {
			return fmt.Errorf("master's head is %s %s, %s's is %s %s", a.Number, a.Hash, replica.Name, b.Number, b.Hash)
		}
		return nil
	})
}

func fetch(ctx context.Context, port int, path string) ([]byte, int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+localhost(port)+path, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return body, response.StatusCode, err
}

// kills is how often the kill loops kill.
func kills(t *testing.T) int {
	t.Helper()
	value := os.Getenv("DROVER_E2E_KILLS")
	if value == "" {
		return 20
	}
	return must(strconv.Atoi(value))(t)
}

package rig

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
)

// Cluster is what one master and its replicas share. It is small and may be copied, to change what a process is told.
type Cluster struct {
	Name         string
	Dir          string   // for datadirs and logs
	Brokers      []string // addresses
	KafkaFlags   []string // how to get in, for every process
	Geth         string   // executable
	Master       string   // geth datadir
	ReplicaFlags []string // of every replica
}

// Fresh are the flags of a replica that serves a chain whose clock stands still.
var Fresh = []string{"--ready.max-age", "0s"}

// Command is a process that logs beside the datadirs.
func (c *Cluster) Command(name, path string, args ...string) harness.Command {
	return harness.Command{Name: name, Path: path, Args: args, Log: c.Dir}
}

func (c *Cluster) kafka() []string {
	return append([]string{"--cluster", c.Name, "--kafka.brokers", strings.Join(c.Brokers, ",")}, c.KafkaFlags...)
}

// MasterCommand is drover master around a geth command line.
func (c *Cluster) MasterCommand(t *testing.T, adminPort int, gethArgs []string, flags ...string) harness.Command {
	t.Helper()
	args := append(append([]string{"master"}, c.kafka()...), "--datadir", c.Master, "--admin.addr", Localhost(adminPort))
	args = append(append(args, flags...), "--", c.Geth)
	return c.Command("master", Drover(t), append(args, gethArgs...)...)
}

// ReplicaCommand is drover replica on a datadir.
func (c *Cluster) ReplicaCommand(t *testing.T, datadir string, adminPort int, flags ...string) harness.Command {
	t.Helper()
	args := append(append([]string{"replica"}, c.kafka()...), "--datadir", datadir, "--admin.addr", Localhost(adminPort), "--cache", "128")
	return c.Command(filepath.Base(datadir), Drover(t), append(append(args, c.ReplicaFlags...), flags...)...)
}

// InspectCommand is drover log inspect.
func (c *Cluster) InspectCommand(t *testing.T, flags ...string) harness.Command {
	t.Helper()
	return c.Command("inspect", Drover(t), append(append([]string{"log", "inspect"}, c.kafka()...), flags...)...)
}

// SnapshotCommand is drover snapshot with a store.
func (c *Cluster) SnapshotCommand(t *testing.T, store, command string, flags ...string) harness.Command {
	t.Helper()
	args := append(append([]string{"snapshot", command}, c.kafka()...), "--store", store)
	return c.Command("snapshot", Drover(t), append(args, flags...)...)
}

// ImportUnderCapture runs `geth import` below a master to its end.
func (c *Cluster) ImportUnderCapture(t *testing.T, limit time.Duration, chain string) {
	t.Helper()
	Succeed(t, limit, c.MasterCommand(t, Port(t), harness.ImportArgs(c.Master, chain)))
}

// Sync runs a replica until it has applied everything.
func (c *Cluster) Sync(t *testing.T, limit time.Duration, datadir string) {
	t.Helper()
	Succeed(t, limit, c.ReplicaCommand(t, datadir, Port(t), "--until-synced"))
}

// CopyAtRest makes a replica's datadir of the master's, which nobody has open and which stands at its sequence on the
// timeline.
func (c *Cluster) CopyAtRest(t *testing.T, name string, timeline uint64) string {
	t.Helper()
	datadir := filepath.Join(c.Dir, name)
	to := harness.Chaindata(datadir)
	CopyTree(t, harness.Chaindata(c.Master), to)
	state := Must(chaindata.Inspect(to))(t)
	marker := chaindata.Marker{Cluster: c.Name, Timeline: timeline, Role: chaindata.RoleCopy, Sequence: state.Sequence}
	if err := chaindata.WriteMarker(to, marker); err != nil {
		t.Fatal(err)
	}
	return datadir
}

// At is the cluster with another datadir for its master, and a directory of its own for logs.
func (c *Cluster) At(t *testing.T, datadir string) *Cluster {
	t.Helper()
	other := *c
	other.Master, other.Dir = datadir, datadir+".run"
	MakeDir(t, other.Dir)
	return &other
}

// OpenLog opens the change log, until the test ends.
func (c *Cluster) OpenLog(t *testing.T) *changelog.Log {
	t.Helper()
	log := Must(changelog.Open(t.Context(), changelog.Options{Brokers: c.Brokers, Cluster: c.Name}))(t)
	t.Cleanup(func() { log.Close() })
	return log
}

// BehindBoundary counts the batches of an older timeline that stand behind the start of the newest.
func (c *Cluster) BehindBoundary(t *testing.T) (frames int) {
	t.Helper()
	log := c.OpenLog(t)
	first, next, err := log.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newest := uint64(0)
	err = log.ReadRange(t.Context(), first, next, func(e changelog.Entry) error {
		if newest = max(newest, e.Frame.Timeline); e.Frame.Timeline < newest && e.Frame.Kind == changelog.KindBatch {
			frames++
		}
		return e.Err
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// StartMaster starts a master around a geth that is driven by the Engine API, and waits for its RPC.
func (c *Cluster) StartMaster(t *testing.T, flags ...string) *Node {
	t.Helper()
	n, err := c.TryMaster(t, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TryMaster is StartMaster where the master may end before its RPC answers.
func (c *Cluster) TryMaster(t *testing.T, flags ...string) (*Node, error) {
	t.Helper()
	n := &Node{Endpoints: Endpoints(t), AdminPort: Port(t)}
	jwt := filepath.Join(c.Dir, "jwt")
	secret := Must(harness.WriteJWT(jwt))(t)
	n.Process = Start(t, c.MasterCommand(t, n.AdminPort, harness.NodeArgs(c.Master, jwt, n.Endpoints), flags...))
	return n, n.connect(t, secret)
}

// StartGeth starts a geth without Drover that is driven by the Engine API.
func StartGeth(t *testing.T, name, datadir string, flags ...string) *Node {
	t.Helper()
	n := &Node{Endpoints: Endpoints(t)}
	jwt := filepath.Join(filepath.Dir(datadir), name+".jwt")
	secret := Must(harness.WriteJWT(jwt))(t)
	args := append(harness.NodeArgs(datadir, jwt, n.Endpoints), flags...) // of a flag given twice, the last one wins
	n.Process = Start(t, harness.Command{Name: name, Path: Geth(t), Args: args, Log: filepath.Dir(datadir)})
	if err := n.connect(t, secret); err != nil {
		t.Fatal(err)
	}
	return n
}

// StartDevMaster starts a master around a developer chain with a block each period; period 0 makes a block for each
// transaction.
func (c *Cluster) StartDevMaster(t *testing.T, period time.Duration, flags ...string) *Node {
	t.Helper()
	n := &Node{Endpoints: Endpoints(t), AdminPort: Port(t)}
	n.Process = Start(t, c.MasterCommand(t, n.AdminPort, harness.DevArgs(c.Master, n.Endpoints, period), flags...))
	if err := harness.Ready(t.Context(), n.Process, n.Endpoints, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	return n
}

// StartReplica starts a replica that serves RPC. It does not wait: before its first readiness, it does not listen.
func (c *Cluster) StartReplica(t *testing.T, datadir string, flags ...string) *Node {
	t.Helper()
	n := &Node{Endpoints: Endpoints(t), AdminPort: Port(t)}
	rpc := []string{
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(n.HTTPPort), "--http.api", harness.RPCNamespaces,
		"--ws", "--ws.addr", "127.0.0.1", "--ws.port", strconv.Itoa(n.WSPort), "--ws.api", harness.RPCNamespaces,
	}
	n.Process = Start(t, c.ReplicaCommand(t, datadir, n.AdminPort, append(rpc, flags...)...))
	return n
}

func (n *Node) connect(t *testing.T, secret [32]byte) error {
	t.Helper()
	if err := harness.Ready(t.Context(), n.Process, n.Endpoints, 2*time.Minute); err != nil {
		return err
	}
	engine, err := harness.DialEngine(t.Context(), n.EngineURL(), secret)
	if err != nil {
		return fmt.Errorf("%s: Engine API: %w", n.Name, err)
	}
	n.Engine = engine
	t.Cleanup(engine.Close)
	return nil
}

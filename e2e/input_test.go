package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

// Bad input of every kind ends the real binary with the exit code that is
// promised and one line that says what and where.

// fullNode runs a geth that is not an archive on the chain's first blocks.
func fullNode(t *testing.T, f *fixture, datadir string) *node {
	t.Helper()
	f.initialise(t, datadir)
	n := &node{Endpoints: endpoints(t)}
	jwt := filepath.Join(filepath.Dir(datadir), "full.jwt")
	secret := must(harness.WriteJWT(jwt))(t)
	args := append(harness.NodeArgs(datadir, jwt, n.Endpoints), "--gcmode", "full") // the last one wins
	n.Process = start(t, harness.Command{Name: "full", Path: geth(t), Args: args, Log: filepath.Dir(datadir)})
	if err := harness.Ready(t.Context(), n.Process, n.Endpoints, time.Minute); err != nil {
		t.Fatal(err)
	}
	n.engine = must(harness.DialEngine(t.Context(), n.EngineURL(), secret))(t)
	t.Cleanup(n.engine.Close)
	return n
}

func (n *node) extend(t *testing.T, f *fixture, from, to int) {
	t.Helper()
	for _, block := range f.blocks[from:to] {
		if err := n.engine.Insert(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		if err := n.engine.Head(t.Context(), block.Hash(), common.Hash{}, common.Hash{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnsupportedSourceIsRefused(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	initialised := func(engine, scheme string) func(*testing.T, string) {
		return func(t *testing.T, datadir string) {
			succeed(t, time.Minute, harness.Command{Name: "init", Path: geth(t), Log: filepath.Dir(datadir),
				Args: []string{"--datadir", datadir, "--db.engine", engine, "--state.scheme", scheme, "init", f.genesisPath()}})
		}
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, datadir string)
		says []string
	}{
		{"pebble", initialised("pebble", "hash"), []string{"Pebble", "--db.engine leveldb"}},
		{"path", initialised("leveldb", "path"), []string{"path", "--state.scheme hash"}},
		{"full", func(t *testing.T, datadir string) {
			n := fullNode(t, f, datadir)
			n.extend(t, f, 0, 20)
			if err := n.Kill(); err != nil { // the states since genesis were in memory only
				t.Fatal(err)
			}
		}, []string{"archive", "--gcmode archive"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, nil)
			test.make(t, c.master)
			requireExit(t, 7, c.masterCommand(t, port(t), harness.ImportArgs(c.master, f.chainPath())), append(test.says, c.master)...)
		})
	}
}

func TestAttachedMasterRefusesFullNodeWhenItsHeadMoves(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	c := newCluster(t, nil)
	n := fullNode(t, f, c.master)
	adminPort := port(t)
	master := start(t, c.command("master", drover(t), "master", "--attach", "--cluster", c.name,
		"--kafka.brokers", localhost(c.brokerPort), "--datadir", c.master, "--admin.addr", localhost(adminPort)))
	until(t, time.Minute, func(ctx context.Context) error { return dial(ctx, adminPort) })
	n.extend(t, f, 0, 20)
	requireEnd(t, 7, master, "archive")
}

func TestReplicaRefusesForeignDatabase(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	c := newCluster(t, f)
	mine := c.copyAtRest(t, "mine", 1)
	c.importUnderCapture(t, time.Minute, f.chainPath())

	mark := func(t *testing.T, datadir string, change func(*chaindata.Marker)) string {
		t.Helper()
		copied := datadir + "-" + filepath.Base(t.Name())
		copyTree(t, datadir, copied)
		marker := must(chaindata.ReadMarker(harness.Chaindata(copied)))(t)
		change(&marker)
		if err := chaindata.WriteMarker(harness.Chaindata(copied), marker); err != nil {
			t.Fatal(err)
		}
		return copied
	}
	otherChain := func(t *testing.T) string {
		t.Helper()
		other := generateOther(t)
		datadir := filepath.Join(workdir(t), "other")
		other.initialise(t, datadir)
		marker := must(chaindata.ReadMarker(harness.Chaindata(mine)))(t)
		marker.Sequence = must(chaindata.Inspect(harness.Chaindata(datadir)))(t).Sequence
		if err := chaindata.WriteMarker(harness.Chaindata(datadir), marker); err != nil {
			t.Fatal(err)
		}
		return datadir
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T) string
		code int
		says []string
	}{
		{"another cluster", func(t *testing.T) string {
			return mark(t, mine, func(m *chaindata.Marker) { m.Cluster = "other" })
		}, 2, []string{`"other"`, `"test"`}},
		{"another chain", otherChain, 2, []string{"genesis"}},
		{"the master's own", func(*testing.T) string { return c.master }, 2, []string{"master", "copy"}},
		{"no marker", func(t *testing.T) string {
			copied := filepath.Join(c.dir, "unmarked") // from after the master's first start
			copyTree(t, c.master, copied)
			if err := os.Remove(filepath.Join(harness.Chaindata(copied), chaindata.MarkerName)); err != nil {
				t.Fatal(err)
			}
			return copied
		}, 2, []string{"copy"}},
		{"empty", func(t *testing.T) string { return filepath.Join(c.dir, "absent") }, 2, []string{"no database"}},
		{"a timeline that never was", func(t *testing.T) string {
			return mark(t, mine, func(m *chaindata.Marker) { m.Timeline = 9 })
		}, 5, []string{"timeline"}},
		{"ahead of the topic", func(t *testing.T) string {
			return mark(t, mine, func(m *chaindata.Marker) { m.Sequence = 1 << 40 })
		}, 5, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			requireExit(t, test.code, c.replicaCommand(t, test.make(t), port(t), "--until-synced"), test.says...)
		})
	}
}

// generateOther is a chain with another genesis block.
func generateOther(t *testing.T) *fixture {
	t.Helper()
	dir := workdir(t)
	f := &fixture{dir: dir, generator: must(chain.New(chain.Options{Seed: 99, Txs: 5}))(t)}
	f.blocks = f.extend(t, f.generator.Genesis(), 2, 0)
	f.write(t)
	return f
}

func TestTopicOfAnotherClusterIsRefused(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	c := newCluster(t, f)
	datadir := c.copyAtRest(t, "replica", 1)
	c.importUnderCapture(t, time.Minute, f.chainPath())
	messages := readTopic(t, c)

	other := c.anotherBroker(t, "renamed")
	other.name = "other"
	writeTopic(t, other, messages) // the frames say that they are cluster test's
	marker := must(chaindata.ReadMarker(harness.Chaindata(datadir)))(t)
	marker.Cluster = other.name
	if err := chaindata.WriteMarker(harness.Chaindata(datadir), marker); err != nil {
		t.Fatal(err)
	}
	requireExit(t, 2, other.replicaCommand(t, datadir, port(t), "--until-synced"), `"test"`, `"other"`)
	requireExit(t, 2, other.masterCommand(t, port(t), harness.ImportArgs(c.master, f.chainPath())), `"test"`, `"other"`)

	// The topic of this cluster's name, with another chain's database for its master.
	stranger := c.anotherBroker(t, "stranger")
	writeTopic(t, stranger, messages)
	foreign := generateOther(t)
	stranger.master = filepath.Join(stranger.dir, "master")
	foreign.initialise(t, stranger.master)
	p := start(t, stranger.masterCommand(t, port(t), harness.ImportArgs(stranger.master, foreign.chainPath())))
	requireEnd(t, 2, p, "never its source")
}

func TestWrongUseIsToldInOneLine(t *testing.T) {
	f := generate(t, chainSize{64, 60})
	c := newCluster(t, f)
	datadir := c.copyAtRest(t, "replica", 1)
	c.importUnderCapture(t, time.Minute, f.chainPath())
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { taken.Close() })
	takenPort := taken.Addr().(*net.TCPAddr).Port

	config := func(content string) string {
		path := filepath.Join(c.dir, "drover.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	silent := *c
	silent.brokerPort = port(t) // nobody listens there
	for _, test := range []struct {
		name    string
		command harness.Command
		code    int
		says    []string
	}{
		{"unknown flag", c.replicaCommand(t, datadir, port(t), "--no-such-flag"), 2, []string{"no-such-flag"}},
		{"unknown command", c.command("drover", drover(t), "shepherd"), 2, []string{"shepherd"}},
		{"missing flag", c.command("drover", drover(t), "replica", "--cluster", "test"), 2, []string{"--kafka.brokers"}},
		{"unknown key", c.replicaCommand(t, datadir, port(t), "--config", config("htpp: true\n")), 2, []string{"htpp", "drover.yaml"}},
		{"unknown namespace", c.replicaCommand(t, datadir, port(t), "--http", "--http.api", "eth,personal"), 2, []string{"personal"}},
		{"wrong cluster name", withCluster(c, "No_Good").replicaCommand(t, datadir, port(t)), 2, []string{"No_Good"}},
		{"master without geth", c.command("drover", drover(t), "master", "--cluster", "test", "--kafka.brokers", localhost(c.brokerPort), "--datadir", c.master), 2, []string{"geth"}},
		{"geth not an archive", c.masterCommand(t, port(t), []string{"--datadir", c.master, "--db.engine", "leveldb", "--state.scheme", "hash", "import", f.chainPath()}), 7, []string{"--gcmode archive"}},
		{"geth's datadir is another", c.masterCommand(t, port(t), harness.ImportArgs(datadir, f.chainPath())), 2, []string{"--datadir"}},
		{"broker missing, replica", silent.replicaCommand(t, datadir, port(t)), 1, []string{localhost(silent.brokerPort), "broker"}},
		{"broker missing, master", silent.masterCommand(t, port(t), harness.ImportArgs(c.master, f.chainPath())), 1, []string{localhost(silent.brokerPort), "broker"}},
		{"broker missing, inspect", silent.command("inspect", drover(t), "log", "inspect", "--cluster", "test", "--kafka.brokers", localhost(silent.brokerPort)), 1, []string{localhost(silent.brokerPort), "broker"}},
		{"no such topic", withCluster(c, "nobody").command("inspect", drover(t), "log", "inspect", "--cluster", "nobody", "--kafka.brokers", localhost(c.brokerPort)), 1, []string{"nobody"}},
		{"admin port in use", c.replicaCommand(t, datadir, takenPort), 1, []string{localhost(takenPort), "in use"}},
		{"HTTP port in use", c.replicaCommand(t, datadir, port(t), "--http", "--http.port", portText(takenPort)), 2, []string{localhost(takenPort), "in use"}},
		{"broker's port in use", c.command("second-broker", drover(t), "broker", "--listen", localhost(takenPort), "--data-dir", filepath.Join(c.dir, "second")), 1, []string{localhost(takenPort), "in use"}},
	} {
		t.Run(test.name, func(t *testing.T) { requireExit(t, test.code, test.command, test.says...) })
	}
}

func withCluster(c *cluster, name string) *cluster {
	renamed := *c
	renamed.name = name
	return &renamed
}

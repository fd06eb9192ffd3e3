package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// Bad input of every kind ends the real binary with the exit code that is
// promised and one line that says what and where.

// fullNode runs a geth that is not an archive on the chain's genesis block.
func fullNode(t *testing.T, f *rig.Chain, datadir string) *rig.Node {
	t.Helper()
	f.Initialise(t, rig.Geth(t), datadir)
	return rig.StartGeth(t, "full", datadir, "--gcmode", "full")
}

func TestUnsupportedSourceIsRefused(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	initialised := func(engine, scheme string) func(*testing.T, string) {
		return func(t *testing.T, datadir string) {
			rig.Succeed(t, time.Minute, harness.Command{Name: "init", Path: rig.Geth(t), Log: filepath.Dir(datadir),
				Args: []string{"--datadir", datadir, "--db.engine", engine, "--state.scheme", scheme, "init", f.GenesisPath()}})
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
			n.Feed(t, f.Blocks[:20]...)
			if err := n.Kill(); err != nil { // the states since genesis were in memory only
				t.Fatal(err)
			}
		}, []string{"archive", "--gcmode archive"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, nil)
			test.make(t, c.Master)
			rig.RequireExit(t, 7, c.MasterCommand(t, rig.Port(t), harness.ImportArgs(c.Master, f.Path())), append(test.says, c.Master)...)
		})
	}
}

func TestAttachedMasterRefusesFullNodeWhenItsHeadMoves(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, nil)
	n := fullNode(t, f, c.Master)
	adminPort := rig.Port(t)
	master := rig.Start(t, c.Command("master", rig.Drover(t), "master", "--attach", "--cluster", c.Name,
		"--kafka.brokers", c.Brokers[0], "--datadir", c.Master, "--admin.addr", rig.Localhost(adminPort)))
	rig.Until(t, time.Minute, func(ctx context.Context) error { return dial(ctx, adminPort) })
	n.Feed(t, f.Blocks[:20]...)
	rig.RequireEnd(t, 7, master, "archive")
}

func TestReplicaRefusesForeignDatabase(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	mine := c.CopyAtRest(t, "mine", 1)
	c.ImportUnderCapture(t, time.Minute, f.Path())

	mark := func(t *testing.T, datadir string, change func(*chaindata.Marker)) string {
		t.Helper()
		copied := datadir + "-" + filepath.Base(t.Name())
		rig.CopyTree(t, datadir, copied)
		marker := rig.Must(chaindata.ReadMarker(harness.Chaindata(copied)))(t)
		change(&marker)
		if err := chaindata.WriteMarker(harness.Chaindata(copied), marker); err != nil {
			t.Fatal(err)
		}
		return copied
	}
	otherChain := func(t *testing.T) string {
		t.Helper()
		other := rig.GenerateOther(t)
		datadir := filepath.Join(rig.Workdir(t), "other")
		other.Initialise(t, rig.Geth(t), datadir)
		marker := rig.Must(chaindata.ReadMarker(harness.Chaindata(mine)))(t)
		marker.Sequence = rig.Must(chaindata.Inspect(harness.Chaindata(datadir)))(t).Sequence
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
		{"the master's own", func(*testing.T) string { return c.Master }, 2, []string{"master", "copy"}},
		{"no marker", func(t *testing.T) string {
			copied := filepath.Join(c.Dir, "unmarked") // from after the master's first start
			rig.CopyTree(t, c.Master, copied)
			if err := os.Remove(filepath.Join(harness.Chaindata(copied), chaindata.MarkerName)); err != nil {
				t.Fatal(err)
			}
			return copied
		}, 2, []string{"copy"}},
		{"empty", func(t *testing.T) string { return filepath.Join(c.Dir, "absent") }, 2, []string{"no database"}},
		{"a timeline that never was", func(t *testing.T) string {
			return mark(t, mine, func(m *chaindata.Marker) { m.Timeline = 9 })
		}, 5, []string{"timeline"}},
		{"ahead of the topic", func(t *testing.T) string {
			return mark(t, mine, func(m *chaindata.Marker) { m.Sequence = 1 << 40 })
		}, 5, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			rig.RequireExit(t, test.code, c.ReplicaCommand(t, test.make(t), rig.Port(t), "--until-synced"), test.says...)
		})
	}
}

func TestTopicOfAnotherClusterIsRefused(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	c.ImportUnderCapture(t, time.Minute, f.Path())
	messages := c.ReadTopic(t)

	other := c.anotherBroker(t, "renamed")
	other.Name = "other"
	other.WriteTopic(t, messages...) // the frames say that they are cluster test's
	marker := rig.Must(chaindata.ReadMarker(harness.Chaindata(datadir)))(t)
	marker.Cluster = other.Name
	if err := chaindata.WriteMarker(harness.Chaindata(datadir), marker); err != nil {
		t.Fatal(err)
	}
	rig.RequireExit(t, 2, other.ReplicaCommand(t, datadir, rig.Port(t), "--until-synced"), `"test"`, `"other"`)
	rig.RequireExit(t, 2, other.MasterCommand(t, rig.Port(t), harness.ImportArgs(c.Master, f.Path())), `"test"`, `"other"`)

	// The topic of this cluster's name, with another chain's database for its master.
	stranger := c.anotherBroker(t, "stranger")
	stranger.WriteTopic(t, messages...)
	foreign := rig.GenerateOther(t)
	stranger.Master = filepath.Join(stranger.Dir, "master")
	foreign.Initialise(t, rig.Geth(t), stranger.Master)
	p := rig.Start(t, stranger.MasterCommand(t, rig.Port(t), harness.ImportArgs(stranger.Master, foreign.Path())))
	rig.RequireEnd(t, 2, p, "never its source")
}

func TestWrongUseIsToldInOneLine(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	c.ImportUnderCapture(t, time.Minute, f.Path())
	taken := rig.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { taken.Close() })
	takenPort := taken.Addr().(*net.TCPAddr).Port

	config := func(content string) string {
		path := filepath.Join(c.Dir, "drover.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	silent := *c
	silent.Brokers = []string{rig.Localhost(rig.Port(t))} // nobody listens there
	for _, test := range []struct {
		name    string
		command harness.Command
		code    int
		says    []string
	}{
		{"unknown flag", c.ReplicaCommand(t, datadir, rig.Port(t), "--no-such-flag"), 2, []string{"no-such-flag"}},
		{"unknown command", c.Command("drover", rig.Drover(t), "shepherd"), 2, []string{"shepherd"}},
		{"missing flag", c.Command("drover", rig.Drover(t), "replica", "--cluster", "test"), 2, []string{"--kafka.brokers"}},
		{"unknown key", c.ReplicaCommand(t, datadir, rig.Port(t), "--config", config("htpp: true\n")), 2, []string{"htpp", "drover.yaml"}},
		{"unknown namespace", c.ReplicaCommand(t, datadir, rig.Port(t), "--http", "--http.api", "eth,personal"), 2, []string{"personal"}},
		{"wrong cluster name", withCluster(c, "No_Good").ReplicaCommand(t, datadir, rig.Port(t)), 2, []string{"No_Good"}},
		{"master without geth", c.Command("drover", rig.Drover(t), "master", "--cluster", "test", "--kafka.brokers", c.Brokers[0], "--datadir", c.Master), 2, []string{"geth"}},
		{"geth not an archive", c.MasterCommand(t, rig.Port(t), []string{"--datadir", c.Master, "--db.engine", "leveldb", "--state.scheme", "hash", "import", f.Path()}), 7, []string{"--gcmode archive"}},
		{"geth's datadir is another", c.MasterCommand(t, rig.Port(t), harness.ImportArgs(datadir, f.Path())), 2, []string{"--datadir"}},
		{"broker missing, replica", silent.ReplicaCommand(t, datadir, rig.Port(t)), 1, []string{silent.Brokers[0], "broker"}},
		{"broker missing, master", silent.MasterCommand(t, rig.Port(t), harness.ImportArgs(c.Master, f.Path())), 1, []string{silent.Brokers[0], "broker"}},
		{"broker missing, inspect", silent.InspectCommand(t), 1, []string{silent.Brokers[0], "broker"}},
		{"no such topic", withCluster(c, "nobody").InspectCommand(t), 1, []string{"nobody"}},
		{"admin port in use", c.ReplicaCommand(t, datadir, takenPort), 1, []string{rig.Localhost(takenPort), "in use"}},
		{"HTTP port in use", c.ReplicaCommand(t, datadir, rig.Port(t), "--http", "--http.port", fmt.Sprint(takenPort)), 2, []string{rig.Localhost(takenPort), "in use"}},
		{"broker's port in use", c.Command("second-broker", rig.Drover(t), "broker", "--listen", rig.Localhost(takenPort), "--data-dir", filepath.Join(c.Dir, "second")), 1, []string{rig.Localhost(takenPort), "in use"}},
	} {
		t.Run(test.name, func(t *testing.T) { rig.RequireExit(t, test.code, test.command, test.says...) })
	}
}

func withCluster(c *cluster, name string) *cluster {
	renamed := *c
	renamed.Name = name
	return &renamed
}

package kafkae2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
	localgeth "github.com/drover-io/drover/tools/geth"
)

// Fault 18: the master's geth is of the minor release before, then of ours, then of the one before again, on one datadir
// and one change log. Replicas are of this release all along: one follows, one comes late.
func TestRollingUpgradeOfGeth(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 60, Txs: 20})
	current := newCluster(t, "upgrade", f, sharedKafka(t))
	old := *current
	old.Geth = rig.Must(localgeth.OldPath())(t)
	old.Master = filepath.Join(old.Dir, "upgraded")
	f.Initialise(t, old.Geth, old.Master)
	current.Master = old.Master
	follower, late := old.CopyAtRest(t, "follower", 1), old.CopyAtRest(t, "late", 1)
	log := old.OpenLog(t)
	replicas := []*rig.Node{old.StartReplica(t, follower)}
	for i, step := range []struct {
		*cluster
		version string
	}{{&old, localgeth.OldVersion}, {current, localgeth.Version}, {&old, localgeth.OldVersion}} {
		master := step.StartMaster(t)
		requireVersion(t, master, step.version)
		master.Feed(t, f.Blocks[i*20:(i+1)*20]...)
		if i == 2 {
			replicas = append(replicas, old.StartReplica(t, late))
		}
		for _, replica := range replicas {
			rig.SameHead(t, time.Minute, master, replica)
		}
		rig.Until(t, time.Minute, func(ctx context.Context) error { return told(ctx, log, step.version) })
		master.End(t)
	}
	for _, replica := range replicas {
		replica.End(t)
	}
	current.requireEqual(t, follower, late)
}

// told is nil when the newest heartbeat is of a master with that geth, and with the database version of ours.
func told(ctx context.Context, log *changelog.Log, version string) error {
	tail, err := log.Tail(ctx)
	if err != nil {
		return err
	}
	if beat := tail.Heartbeat; beat == nil || !strings.HasPrefix(beat.GethVersion, "Geth/v"+version+"-") || beat.DatabaseVersion != int(core.BlockChainVersion) {
		return fmt.Errorf("the newest heartbeat is %+v", beat)
	}
	return nil
}

func requireVersion(t *testing.T, master *rig.Node, want string) {
	t.Helper()
	var version string
	if err := harness.Ask(t.Context(), master.HTTP(), &version, "web3_clientVersion"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(version, "Geth/v"+want+"-") {
		t.Fatalf("geth is %s, want %s", version, want)
	}
}

// Fault 18, where the database version is not the same: a replica whose master's geth writes a newer one refuses it, as
// it hears of it in a heartbeat and as it meets it in the stream, and applies nothing of it.
func TestNewerDatabaseVersionIsRefused(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 8, Txs: 10})
	for _, test := range []struct {
		name  string
		frame func(t *testing.T, last changelog.Frame) changelog.Frame
	}{
		{"heartbeat", func(t *testing.T, last changelog.Frame) changelog.Frame {
			beat := rig.Must(last.Heartbeat())(t)
			beat.DatabaseVersion = 10
			return changelog.HeartbeatFrame(last.Timeline, last.First-1, *beat, time.Now())
		}},
		{"batch", func(_ *testing.T, last changelog.Frame) changelog.Frame {
			batch := new(leveldb.Batch)
			batch.Put([]byte("DatabaseVersion"), []byte{10})
			batch.Put([]byte("of a newer schema"), nil)
			return batchFrame(last.Timeline, last.First, batch)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, "newer-"+test.name, f, sharedKafka(t))
			datadir := c.CopyAtRest(t, "replica", 1)
			c.ImportUnderCapture(t, time.Minute, f.Path())
			messages := c.ReadTopic(t)
			last := rig.Frame(t, messages[len(messages)-1])
			if last.Kind != changelog.KindHeartbeat {
				t.Fatalf("the last frame is of kind %d, want the master's last heartbeat", last.Kind)
			}
			replica := c.StartReplica(t, datadir)
			rig.Until(t, time.Minute, func(ctx context.Context) error {
				status, err := replica.Status(ctx)
				if err == nil && status.Sequence < last.First-1 {
					err = fmt.Errorf("the replica is at sequence %d", status.Sequence)
				}
				return err
			})
			frame := test.frame(t, last)
			c.WriteTopic(t, frame.AppendTo(nil))
			rig.RequireEnd(t, 2, replica.Process, "version 10", "up to 9", "geth "+localgeth.Version, "upgrade")
			rig.RequireExit(t, 2, c.ReplicaCommand(t, datadir, rig.Port(t)), "version 10", "upgrade")
			if at := rig.Position(t, datadir).Sequence; at != last.First-1 {
				t.Errorf("the replica stands at sequence %d, want %d", at, last.First-1)
			}
			rig.RequireEqual(t, c.Master, datadir)
		})
	}
}

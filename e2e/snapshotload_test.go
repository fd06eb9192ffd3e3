package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// Fault 14: snapshots are taken, one after the other, of a master whose geth imports blocks as fast as it can. Each is
// proved, restored and opened, and after the replay its database is the master's. DROVER_E2E_SNAPSHOTS is how many (10).
// That each is the master at its very sequence, too, is what snapshot.TestSnapshotsDuringAGethImport… shows.
func TestSnapshotsUnderFullLoadBecomeTheMaster(t *testing.T) {
	t.Parallel()
	count := rig.Number(t, "DROVER_E2E_SNAPSHOTS", 10)
	f := rig.Generate(t, rig.Size{Blocks: 150, Txs: 40})
	c := newCluster(t, f)
	c.ReplicaFlags = rig.Fresh
	store := filepath.Join(c.Dir, "store")
	head, master := f.Blocks[len(f.Blocks)-1], importing(t, c, f.Path(), 0)
	var made []manifest
	for len(made) < count {
		if !master.Running() { // geth was quicker: it gets more to do
			rig.RequireEnd(t, 0, master.Process)
			more := f.Extend(t, head, 75, 0)
			path := filepath.Join(c.Dir, fmt.Sprintf("from-%d.rlp", more[0].NumberU64()))
			rig.WriteBlocks(t, path, more)
			master = importing(t, c, path, head.NumberU64())
			head = more[len(more)-1]
		}
		// By hard link, and as copies, which take longer.
		flags := []string{"--datadir", c.Master, "--json"}
		if len(made)%2 == 1 {
			flags = append(flags, "--no-hard-links")
		}
		made = append(made, created(t, rig.Succeed(t, 2*time.Minute, c.SnapshotCommand(t, store, "create", flags...))))
	}
	rig.RequireEnd(t, 0, master.Process)

	blocks := make(map[uint64]bool)
	for i, m := range made {
		blocks[m.Head.Number] = true
		rig.Succeed(t, 2*time.Minute, c.SnapshotCommand(t, store, "verify", "--id", m.ID))
		datadir := filepath.Join(c.Dir, fmt.Sprint("replica", i))
		rig.Succeed(t, 2*time.Minute, c.ReplicaCommand(t, datadir, rig.Port(t), "--snapshot", store+"#"+m.ID, "--until-synced"))
		rig.RequireEqual(t, c.Master, datadir)
		t.Logf("snapshot %d: block %d, sequence %d", i+1, m.Head.Number, m.Sequence)
		rig.RemoveTree(t, datadir)
	}
	if len(blocks) < count/2 {
		t.Errorf("%d snapshots of a moving master show %d heads", count, len(blocks))
	}
}

// importing starts a master around `geth import`, and waits until its head is above a block.
func importing(t *testing.T, c *cluster, chain string, above uint64) *rig.Node {
	t.Helper()
	n := &rig.Node{AdminPort: rig.Port(t)}
	n.Process = rig.Start(t, c.MasterCommand(t, n.AdminPort, harness.ImportArgs(c.Master, chain)))
	rig.Until(t, time.Minute, func(ctx context.Context) error {
		s, err := n.Status(ctx)
		if err == nil && (s.Head == nil || s.Head.Number <= above) {
			err = errors.New("the import has not begun")
		}
		return err
	})
	return n
}

// created reads the JSON behind the progress.
func created(t *testing.T, output string) manifest {
	t.Helper()
	var res struct{ Manifest manifest }
	if err := json.NewDecoder(strings.NewReader(output[max(0, strings.Index(output, "{")):])).Decode(&res); err != nil {
		t.Fatalf("%v in:\n%s", err, output)
	}
	return res.Manifest
}

// manifest is what `drover snapshot create --json` says of a snapshot.
type manifest struct {
	ID       string
	Sequence uint64
	Head     struct{ Number uint64 }
}

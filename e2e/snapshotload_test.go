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
	count := rig.Number(t, "DROVER_E2E_SNAPSHOTS", 10)
	// The import has to outlast the snapshots: it takes some three times as long as they do.
	f := rig.Generate(t, rig.Size{Blocks: 100 * count, Txs: 50})
	c := newCluster(t, f)
	c.ReplicaFlags = rig.Fresh
	store := filepath.Join(c.Dir, "store")
	master := &rig.Node{AdminPort: rig.Port(t)}
	master.Process = rig.Start(t, c.MasterCommand(t, master.AdminPort, harness.ImportArgs(c.Master, f.Path())))
	rig.Until(t, time.Minute, func(ctx context.Context) error {
		s, err := master.Status(ctx)
		if err == nil && (s.Head == nil || s.Head.Number == 0) {
			err = errors.New("the import has not begun")
		}
		return err
	})
	var made []manifest
	for len(made) < count {
		// By hard link, and as copies, which take longer.
		flags := []string{"--datadir", c.Master, "--json"}
		if len(made)%2 == 1 {
			flags = append(flags, "--no-hard-links")
		}
		made = append(made, created(t, rig.Succeed(t, 2*time.Minute, c.SnapshotCommand(t, store, "create", flags...))))
	}
	if !master.Running() {
		t.Fatal("the import was over before the last snapshot")
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
	if len(blocks) < count-1 {
		t.Errorf("%d snapshots of a moving master show %d heads", count, len(blocks))
	}
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

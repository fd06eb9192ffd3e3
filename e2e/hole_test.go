package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// fakeGeth is the environment variable that makes this test binary play a geth
// that writes a batch past its journal.
const fakeGeth = "DROVER_E2E_FAKE_GETH"

// playGeth opens the database with a small write buffer, and writes one batch
// that is larger: goleveldb puts that straight into tables. real geth's batches
// stay far below its write buffer, so this cannot be had from it on demand.
func playGeth(dir string) error {
	db, err := leveldb.OpenFile(dir, &opt.Options{WriteBuffer: 256 << 10})
	if err != nil {
		return err
	}
	defer db.Close()
	for i := range 3 {
		if i == 1 {
			batch := new(leveldb.Batch)
			for j := range 64 {
				batch.Put([]byte(fmt.Sprintf("large-%d", j)), make([]byte, 8<<10))
			}
			if err := db.Write(batch, nil); err != nil {
				return err
			}
		}
		if err := db.Put([]byte(fmt.Sprintf("small-%d", i)), []byte("x"), nil); err != nil {
			return err
		}
	}
	time.Sleep(time.Minute) // it is Drover that has to end this
	return nil
}

// Fault 17: a batch past the journal is a hole. It ends capture, takes geth
// down, and is found again at every start; nothing behind it is published.
func TestBatchPastTheJournalIsAHole(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 64, Txs: 60})
	c := newCluster(t, f)
	datadir := c.CopyAtRest(t, "replica", 1)
	c.ImportUnderCapture(t, time.Minute, f.Path())

	self := rig.Must(os.Executable())(t)
	command := c.MasterCommand(t, rig.Port(t), nil)
	for i, arg := range command.Args {
		if arg == "--" {
			command.Args = append(command.Args[:i+1:i+1], append([]string{self}, harness.ImportArgs(c.Master, "chain.rlp")...)...)
			break
		}
	}
	command.Env = []string{fakeGeth + "=" + harness.Chaindata(c.Master)}
	rig.RequireExit(t, 6, command, "hole", "sequence")
	rig.RequireExit(t, 6, c.MasterCommand(t, rig.Port(t), harness.ImportArgs(c.Master, f.Path())), "hole")
	c.Sync(t, time.Minute, datadir)
	db := rig.Must(leveldb.OpenFile(harness.Chaindata(datadir), nil))(t)
	defer db.Close()
	if _, err := db.Get([]byte("small-2"), nil); err == nil {
		t.Error("what was written behind the hole reached the replica")
	}
	if _, err := db.Get([]byte("small-0"), nil); err != nil {
		t.Errorf("what was written before the hole did not reach the replica: %v", err)
	}
}

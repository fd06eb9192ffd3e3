package replica

import (
	"context"
	"os"
	"testing"
)

// chainDir holds genesis.json and chain.rlp, made by tools/chaingen.
func chainDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("DROVER_TEST_CHAIN")
	if dir == "" {
		t.Skip("no chain: set DROVER_TEST_CHAIN to a directory made by tools/chaingen")
	}
	return dir
}

func TestReplayOfAnImportedChainGivesTheMastersDatabase(t *testing.T) {
	dir := chainDir(t)
	m := newMaster(t, dir+"/genesis.json")
	replica := t.TempDir()
	m.copyTo(replica)
	m.capture()
	runGeth(t, append([]string{"import", "--datadir", m.datadir, "--gcmode", "archive", "--nocompaction"}, append(gethStorage, dir+"/chain.rlp")...)...)
	m.finish()

	r := startReplica(t, m.log, replica, func(o *Options) { o.UntilSynced = true })
	r.wait()
	if r.err != nil {
		t.Fatal(r.err)
	}
	sameDatabases(t, m.datadir, replica)

	// And once geth has had the database.
	r = startReplica(t, m.log, replica, nil)
	r.reaches(m.last)
	eventually(t, 60e9, "geth", func() error {
		if r.Status(context.Background()).Extra.(Extra).Phase != "live" {
			return os.ErrNotExist
		}
		return nil
	})
	r.stop()
	sameDatabases(t, m.datadir, replica)
}

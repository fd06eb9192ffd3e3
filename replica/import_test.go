package replica

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// chainDir holds genesis.json and chain.rlp of tools/chaingen: DROVER_TEST_CHAIN, or a small one made now.
func chainDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("DROVER_TEST_CHAIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	out, err := exec.Command("go", "run", "../tools/chaingen", "--out", dir, "--blocks", "40", "--txs", "30").CombinedOutput()
	if err != nil {
		t.Fatalf("chaingen: %v\n%s", err, out)
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
	eventually(t, time.Minute, "geth", func() error {
		if r.Status(context.Background()).Extra.(Extra).Phase != "live" {
			return os.ErrNotExist
		}
		return nil
	})
	r.stop()
	sameDatabases(t, m.datadir, replica)
}

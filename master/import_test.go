package master

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The chain comes from tools/chaingen. Its import has no IPC, so genesis and head come from the stream alone.
func TestImportedChainIsOnTheTopic(t *testing.T) {
	chain := os.Getenv("DROVER_TEST_CHAIN")
	if chain == "" {
		t.Skip("no chain: set DROVER_TEST_CHAIN to a directory made by tools/chaingen")
	}
	geth, datadir, address := gethBinary(t), shortDir(t), os.Getenv("DROVER_TEST_BROKER")
	if address == "" {
		address = startBroker(t)
	}
	for _, argv := range [][]string{
		{geth, "init", "--datadir", datadir, "--db.engine", "leveldb", "--state.scheme", "hash", filepath.Join(chain, "genesis.json")},
		append(append([]string{geth, "import", "--datadir", datadir}, storageFlags...), filepath.Join(chain, "chain.rlp")),
	} {
		opts := masterConfig{Broker: address, Datadir: datadir, Geth: argv}.options()
		opts.Stdout, opts.Stderr = io.Discard, io.Discard
		m, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	log := openLog(t, address)
	assertEqual(t, log, datadir)
	all := heartbeats(t, log)
	if last := all[len(all)-1]; len(last.Genesis) != 66 || last.Head == nil || last.Head.Number == 0 || last.Head.Time == 0 {
		t.Errorf("the last heartbeat: %+v", last)
	}
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func generate(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := run(append([]string{"--out", dir}, args...), io.Discard); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestSameSeedGivesSameBytes(t *testing.T) {
	args := []string{"--blocks", "20", "--txs", "20", "--seed", "7"}
	first, second := generate(t, args...), generate(t, args...)
	other := generate(t, "--blocks", "20", "--txs", "20", "--seed", "8")
	for _, name := range []string{"genesis.json", "chain.rlp"} {
		if !bytes.Equal(read(t, first, name), read(t, second, name)) {
			t.Errorf("%s differs between two runs with one seed", name)
		}
		if bytes.Equal(read(t, first, name), read(t, other, name)) {
			t.Errorf("%s does not depend on the seed", name)
		}
	}
	entries, err := os.ReadDir(first)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestGethImportsTheChain(t *testing.T) {
	geth := os.Getenv("DROVER_TEST_GETH")
	if geth == "" {
		geth = "../../.cache/bin/geth-1.17.7"
	}
	if _, err := os.Stat(geth); err != nil {
		t.Fatalf("geth is needed: set DROVER_TEST_GETH or run make geth: %v", err)
	}
	const blocks = 40
	dir := generate(t, "--blocks", fmt.Sprint(blocks), "--txs", "100")
	datadir := t.TempDir()
	command := func(args ...string) string {
		t.Helper()
		args = append([]string{"--datadir", datadir, "--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "archive"}, args...)
		out, err := exec.Command(geth, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("geth %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	command("init", filepath.Join(dir, "genesis.json"))
	command("import", filepath.Join(dir, "chain.rlp"))
	exported := filepath.Join(datadir, "exported.rlp")
	command("export", exported, "1", fmt.Sprint(blocks))
	if !bytes.Equal(read(t, dir, "chain.rlp"), read(t, datadir, "exported.rlp")) {
		t.Error("geth exports another chain than it imported")
	}
}

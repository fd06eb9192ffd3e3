package master

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-io/drover/chaindata"
)

func noEnv(string) string { return "" }

func TestGethArgumentsAreCheckedBeforeAnythingStarts(t *testing.T) {
	good := "geth --datadir /d --db.engine leveldb --state.scheme hash --gcmode archive"
	for _, test := range []struct {
		name, argv string
		env        map[string]string
		target     error  // nil: accepted
		text       string // of the error
	}{
		{"good", good, nil, nil, ""},
		{"good with equal signs and single dashes", "geth -datadir=/d -db.engine=leveldb --state.scheme=hash --gcmode=archive --dev", nil, nil, ""},
		{"good behind a subcommand", "geth --datadir /d import --db.engine leveldb --state.scheme hash --gcmode archive chain.rlp", nil, nil, ""},
		{"good in another spelling of the directory", strings.Replace(good, "/d", "/x/../d/", 1), nil, nil, ""},
		{"good by environment", "geth", map[string]string{"GETH_DATADIR": "/d", "GETH_DB_ENGINE": "leveldb", "GETH_STATE_SCHEME": "hash", "GETH_GCMODE": "archive"}, nil, ""},
		{"config file may say the rest", "geth --datadir /d --config geth.toml", nil, nil, ""},
		{"init knows no gcmode", "geth init --datadir /d --db.engine leveldb --state.scheme hash genesis.json", nil, nil, ""},
		{"nothing said", "geth --datadir /d", nil, chaindata.ErrUnsupportedSource, "add --db.engine leveldb --state.scheme hash --gcmode archive to"},
		{"one missing", "geth --datadir /d --db.engine leveldb --state.scheme hash", nil, chaindata.ErrUnsupportedSource, "add --gcmode archive to"},
		{"pebble", strings.Replace(good, "leveldb", "pebble", 1), nil, chaindata.ErrUnsupportedSource, "use --db.engine leveldb"},
		{"path scheme", strings.Replace(good, "hash", "path", 1), nil, chaindata.ErrUnsupportedSource, "use --state.scheme hash"},
		{"not archive", strings.Replace(good, "archive", "full", 1), nil, chaindata.ErrUnsupportedSource, "use --gcmode archive"},
		{"not archive although a config file might", "geth --datadir /d --config geth.toml --gcmode full", nil, chaindata.ErrUnsupportedSource, "use --gcmode archive"},
		{"pebble by environment", "geth --datadir /d --state.scheme hash --gcmode archive", map[string]string{"GETH_DB_ENGINE": "pebble"}, chaindata.ErrUnsupportedSource, "use --db.engine leveldb"},
		{"remote database", good + " --remotedb http://x", nil, chaindata.ErrUnsupportedSource, "--remotedb"},
		{"a later flag wins", good + " --gcmode full", nil, chaindata.ErrUnsupportedSource, "use --gcmode archive"},
		{"behind the end of flags", "geth -- --datadir /d --db.engine leveldb --state.scheme hash --gcmode archive", nil, chaindata.ErrUnsupportedSource, "add"},
		{"no datadir", "geth --db.engine leveldb --state.scheme hash --gcmode archive", nil, ErrUsage, "add --datadir /d"},
		{"another datadir", strings.Replace(good, "/d", "/e", 1), nil, ErrUsage, "/e is not Drover's --datadir /d"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := parseGethArgs(strings.Fields(test.argv), func(name string) string { return test.env[name] }).check("/d")
			if test.target == nil && err != nil {
				t.Errorf("refused: %v", err)
			}
			if test.target != nil {
				assertErrorIs(t, err, test.target, test.text)
			}
		})
	}
}

func TestDatadirIsComparedThroughSymlinksAndHome(t *testing.T) {
	real := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", real)
	for _, spelling := range []string{link + "/sub", "~/sub", "$HOME/sub"} {
		args := parseGethArgs(append([]string{"geth", "--datadir", spelling}, storageFlags...), noEnv)
		if err := args.check(filepath.Join(real, "sub")); err != nil {
			t.Errorf("%s: %v", spelling, err)
		}
	}
}

func TestIPCPathFollowsGethsRule(t *testing.T) {
	for argv, want := range map[string]string{
		"geth":                           "/d/geth.ipc",
		"geth --ipcpath x.ipc":           "/d/x.ipc",
		"geth --ipcpath=/run/g.ipc":      "/run/g.ipc",
		"geth --ipcdisable":              "",
		"geth --ipcdisable=false":        "/d/geth.ipc",
		"geth --ipcdisable --ipcpath /x": "",
	} {
		if got := parseGethArgs(strings.Fields(argv), noEnv).ipcPath("/d"); got != want {
			t.Errorf("%s: got %q, want %q", argv, got, want)
		}
	}
}

func TestOptionsThatDoNotFitAreRefused(t *testing.T) {
	for text, opts := range map[string]Options{
		"--datadir is needed":             {Cluster: "c"},
		"leave out":                       {Cluster: "c", Datadir: "/d", Attach: true, Geth: []string{"geth"}},
		"say how to start geth":           {Cluster: "c", Datadir: "/d"},
		"cluster name \"Not a cluster!\"": {Cluster: "Not a cluster!", Datadir: "/d", Attach: true},
	} {
		_, err := New(opts)
		assertErrorIs(t, err, ErrUsage, text)
	}
	if _, err := New(Options{Cluster: "c", Datadir: "/d", Attach: true}); errors.Is(err, ErrUsage) {
		t.Errorf("refused: %v", err)
	}
}

package master

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-io/drover/chaindata"
)

// gethArgs is what Drover has to know of the command line that it starts geth with. geth reads each flag from its
// arguments or, failing that, from an environment variable GETH_… (its internal/flags/helpers.go, AutoEnvVars).
type gethArgs struct {
	flags map[string]string
	bare  []string // tokens that are neither flags nor the values of the flags below
	env   func(string) string
}

// valued are the flags that Drover looks at and that take a value in the next token. Of other flags it need not know
// whether they do.
var valued = []string{"db.engine", "state.scheme", "gcmode", "datadir", "config", "ipcpath", "remotedb"}

func parseGethArgs(argv []string, env func(string) string) gethArgs {
	args := gethArgs{flags: map[string]string{}, env: env}
	for i := 1; i < len(argv); i++ {
		token := argv[i]
		if token == "--" {
			break
		}
		if len(token) < 2 || token[0] != '-' {
			args.bare = append(args.bare, token)
			continue
		}
		name, value, joined := strings.Cut(strings.TrimLeft(token, "-"), "=")
		if !joined && slices.Contains(valued, name) && i+1 < len(argv) {
			i++
			value = argv[i]
		}
		args.flags[name] = value
	}
	return args
}

// value returns what geth will take for a flag, and false when neither arguments nor environment give it.
func (a gethArgs) value(name string) (string, bool) {
	if value, ok := a.flags[name]; ok {
		return value, true
	}
	value := a.env("GETH_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(name)))
	return value, value != ""
}

// check says whether geth, started with these arguments, writes what a change log needs into the datadir given.
// ErrUsage stands for arguments that do not fit ours, chaindata.ErrUnsupportedSource for a kind of database that
// cannot be captured. A --config file may hold the three storage settings, so their absence is then left to the
// check of the captured stream.
func (a gethArgs) check(datadir string) error {
	if remote, ok := a.value("remotedb"); ok {
		return fmt.Errorf("%w: geth's --remotedb %s writes to another machine's disk: leave it out", chaindata.ErrUnsupportedSource, remote)
	}
	required := [][2]string{{"db.engine", "leveldb"}, {"state.scheme", "hash"}, {"gcmode", "archive"}}
	if slices.Contains(a.bare, "init") {
		required = required[:2] // geth init knows no --gcmode
	}
	_, hasConfig := a.value("config")
	var missing []string
	for _, flag := range required {
		name, want := flag[0], flag[1]
		switch got, ok := a.value(name); {
		case ok && got != want:
			return fmt.Errorf("%w: geth is started with --%s %s: use --%s %s", chaindata.ErrUnsupportedSource, name, got, name, want)
		case !ok && !hasConfig:
			missing = append(missing, "--"+name+" "+want)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: add %s to geth's arguments", chaindata.ErrUnsupportedSource, strings.Join(missing, " "))
	}
	theirs, ok := a.value("datadir")
	if !ok {
		return fmt.Errorf("%w: add --datadir %s to geth's arguments, so that Drover and geth agree on it", ErrUsage, datadir)
	}
	if resolvePath(expandGethPath(theirs)) != resolvePath(datadir) {
		return fmt.Errorf("%w: geth's --datadir %s is not Drover's --datadir %s: give both the same", ErrUsage, theirs, datadir)
	}
	return nil
}

// ipcPath returns where geth will listen, "" when its arguments switch IPC off.
// The rule is go-ethereum's (node/config.go, IPCEndpoint).
func (a gethArgs) ipcPath(datadir string) string {
	if off, ok := a.value("ipcdisable"); ok && off != "false" {
		return ""
	}
	path, ok := a.value("ipcpath")
	if !ok {
		path = "geth.ipc"
	}
	path = expandGethPath(path)
	if filepath.Base(path) == path {
		return filepath.Join(datadir, path)
	}
	return path
}

// expandGethPath does to a path what geth does to it (internal/flags/flags.go, expandPath).
func expandGethPath(path string) string {
	if strings.HasPrefix(path, "~/") {
		if home, err := os.UserHomeDir(); err == nil {
			path = home + path[1:]
		}
	}
	return filepath.Clean(os.ExpandEnv(path))
}

// resolvePath makes two spellings of one directory comparable, also when its last elements do not exist yet.
func resolvePath(path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	if real, err := filepath.EvalSymlinks(absolute); err == nil {
		return real
	}
	if parent := filepath.Dir(absolute); parent != absolute {
		return filepath.Join(resolvePath(parent), filepath.Base(absolute))
	}
	return absolute
}

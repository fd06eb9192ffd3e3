package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// GethVersion is the version of geth that the tests run.
const GethVersion = "1.17.7"

// OldGethVersion is the last patch of the minor release before: a master may run
// it beside this release's replicas. The Makefile builds it.
const OldGethVersion = "1.16.9"

// GethPath finds geth: DROVER_TEST_GETH, or where `make geth` puts it. A missing
// geth is an error, never a reason to skip.
func GethPath() (string, error) { return gethPath("DROVER_TEST_GETH", GethVersion, "geth") }

// OldGethPath finds the geth of OldGethVersion: DROVER_TEST_OLD_GETH, or where
// `make geth-old` puts it.
func OldGethPath() (string, error) {
	return gethPath("DROVER_TEST_OLD_GETH", OldGethVersion, "geth-old")
}

func gethPath(variable, version, target string) (string, error) {
	path := os.Getenv(variable)
	if path == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, ".cache", "bin", "geth-"+version)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("geth %s is needed: run `make %s` or set %s: %w", version, target, variable, err)
	}
	return path, nil
}

// DroverPath finds drover: DROVER_TEST_BIN, or builds it once for this process,
// with the race detector when DROVER_TEST_RACE is 1.
var DroverPath = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("DROVER_TEST_BIN"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("DROVER_TEST_BIN: %w", err)
		}
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "drover-bin-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "drover")
	args := []string{"build", "-o", path}
	if os.Getenv("DROVER_TEST_RACE") == "1" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/drover")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building drover: %w\n%s", err, out)
	}
	return path, nil
})

var built string

// Cleanup removes what DroverPath built. Call it once, at the end of TestMain.
func Cleanup() {
	if built != "" {
		os.RemoveAll(built)
	}
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("not inside the module: no go.mod above the working directory")
}

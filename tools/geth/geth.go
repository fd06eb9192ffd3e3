// Package localgeth finds the geth binaries that tests and benchmarks run. The Makefile builds them.
package localgeth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Version is the version of geth that the tests run.
const Version = "1.17.7"

// OldVersion is the last patch of the minor release before: a master may run it beside this release's replicas.
const OldVersion = "1.16.9"

// Path finds geth: DROVER_TEST_GETH, or where `make geth` puts it. A missing geth is an error, never a reason to skip.
func Path() (string, error) { return find("DROVER_TEST_GETH", Version, "geth") }

// OldPath finds the geth of OldVersion: DROVER_TEST_OLD_GETH, or where `make geth-old` puts it.
func OldPath() (string, error) { return find("DROVER_TEST_OLD_GETH", OldVersion, "geth-old") }

func find(variable, version, target string) (string, error) {
	path := os.Getenv(variable)
	if path == "" {
		root, err := ModuleRoot()
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

// ModuleRoot is the directory of go.mod, above the working directory.
func ModuleRoot() (string, error) {
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

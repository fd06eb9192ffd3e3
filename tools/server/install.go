package localserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrMissing says that a server could not be installed: a tool or a package is missing. The text says what to do.
var ErrMissing = errors.New("a test server is missing")

// Cache is .cache beside the go.mod above the working directory, or the user's cache directory outside a module.
func Cache() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache"), nil
		}
	}
	dir, err = os.UserCacheDir()
	return filepath.Join(dir, "drover"), err
}

// Install makes sure that target, a file or directory, exists: make is given a fresh path beside it, which is renamed
// when make has succeeded. Several programs may call it at once; one does the work, and what it left half-done is removed.
func Install(target string, make func(partial string) error) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	unlock, err := lock(target + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	partial := target + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := make(partial); err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	return os.Rename(partial, target)
}

// InstallGo builds a program of a Go module, as github.com/versity/versitygw/cmd/versitygw, into .cache/bin if it is not there,
// and returns its path.
func InstallGo(ctx context.Context, pkg, version string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	name := path.Base(pkg)
	binary := filepath.Join(cache, "bin", name+"-"+version)
	return binary, Install(binary, func(partial string) error {
		// go install names the file itself.
		dir := partial + ".gobin"
		defer os.RemoveAll(dir)
		cmd := exec.CommandContext(ctx, "go", "install", pkg+"@"+version)
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
		cmd.Dir = cache // not a module: its go.mod would have a say
		if out, err := cmd.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			return fmt.Errorf("%w: cannot build %s %s: is the Go module proxy reachable? (%w: %s)", ErrMissing, name, version, err, lines[len(lines)-1])
		}
		return os.Rename(filepath.Join(dir, name), partial)
	})
}

// lock waits for an advisory lock, which ends with the process at the latest.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// Package localmoto runs moto, an emulator of AWS (S3, EC2 with EBS, SNS, IAM and more), on this machine for tests.
//
//	aws := localmoto.ForTest(t, localmoto.Options{})
//	aws.URL() // endpoint of every service; any credential is accepted
//
// It lives in a Python virtual environment in .cache, with the versions that requirements.txt pins. DESIGN.md says how far
// its answers go. Production code does not import it.
package localmoto

import (
	"context"
	"crypto/sha256"
	_ "embed" // requirements.txt
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-io/drover/ops/process"
	localserver "github.com/drover-io/drover/tools/server"
)

//go:embed requirements.txt
var requirements []byte

// Options of a server.
type Options struct {
	// Port to serve on; 0 = a free one.
	Port int
	// Env is added to moto's environment, for example INITIAL_NO_AUTH_ACTION_COUNT=0 to have credentials checked.
	Env []string
}

// Start installs moto if need be and starts it. It keeps everything in memory: Kill and Restart lose it. The caller must
// call Close.
func Start(ctx context.Context, opts Options) (*localserver.Server, error) {
	options, err := prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	return localserver.Start(ctx, options)
}

// ForTest starts moto for one test, or for a suite's.
func ForTest(tb testing.TB, opts Options) *localserver.Server {
	tb.Helper()
	options, err := prepare(context.Background(), opts)
	if err != nil {
		tb.Fatalf("moto: %v", err)
	}
	return localserver.ForTest(tb, options)
}

func prepare(ctx context.Context, opts Options) (localserver.Options, error) {
	venv, err := Install(ctx)
	return localserver.Options{
		Name: "moto",
		Port: opts.Port,
		Command: func(addr string) process.Command {
			host, port, _ := net.SplitHostPort(addr) // addr is our own
			return process.Command{
				Path: filepath.Join(venv, "bin", "python3"), Args: []string{"-m", "moto.server", "-H", host, "-p", port},
				Env: append([]string{"MOTO_CALL_RESET_API=false"}, opts.Env...),
			}
		},
	}, err
}

// Install makes the virtual environment in .cache if it is not there, and returns its directory. Another requirements.txt
// is another directory.
func Install(ctx context.Context) (string, error) {
	cache, err := localserver.Cache()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(requirements)
	venv := filepath.Join(cache, "moto-"+hex.EncodeToString(sum[:4]))
	return venv, localserver.Install(venv, func(partial string) error { return install(ctx, partial) })
}

func install(ctx context.Context, venv string) error {
	if _, err := exec.LookPath("python3"); err != nil {
		return fmt.Errorf("%w: python3: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)", localserver.ErrMissing)
	}
	if err := exec.CommandContext(ctx, "python3", "-c", "import venv, ensurepip").Run(); err != nil {
		return fmt.Errorf("%w: Python's venv module (Debian: apt-get install python3-venv)", localserver.ErrMissing)
	}
	if out, err := exec.CommandContext(ctx, "python3", "-m", "venv", venv).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: python3 -m venv: %s", localserver.ErrMissing, lastLine(out, err))
	}
	// Outside the environment, which is to hold nothing else.
	pinned := venv + ".txt"
	if err := os.WriteFile(pinned, requirements, 0o644); err != nil {
		return err
	}
	defer os.Remove(pinned)
	pip := exec.CommandContext(ctx, filepath.Join(venv, "bin", "python3"), "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:", "-r", pinned)
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: pip cannot install moto: is the Python package index reachable?: %s", localserver.ErrMissing, lastLine(out, err))
	}
	return nil
}

func lastLine(out []byte, err error) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return err.Error()
}

package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	localgeth "github.com/drover-io/drover/tools/geth"
)

// Main runs a package's tests, and removes what they share.
func Main(m *testing.M) (code int) {
	defer harness.Cleanup()
	defer removeChains()
	return m.Run()
}

// Must fails the test when a call that returns a value and an error failed: Must(call())(t).
func Must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// Until polls with a deadline.
func Until(t *testing.T, limit time.Duration, probe func(context.Context) error) {
	t.Helper()
	if err := harness.Until(t.Context(), limit, 50*time.Millisecond, probe); err != nil {
		t.Fatal(err)
	}
}

// Number is the value of an environment variable.
func Number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	return Must(strconv.Atoi(value))(t)
}

// Geth is the executable of geth.
func Geth(t *testing.T) string { t.Helper(); return Must(localgeth.Path())(t) }

// Drover is the executable of drover.
func Drover(t *testing.T) string { t.Helper(); return Must(harness.DroverPath())(t) }

// Endpoints are free ports for a node.
func Endpoints(t *testing.T) harness.Endpoints { t.Helper(); return Must(harness.NewEndpoints())(t) }

// Port is a free port.
func Port(t *testing.T) int { t.Helper(); return Must(harness.FreePort())(t) }

// Localhost is the address of a port.
func Localhost(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Workdir is a directory with a short path, as sockets need: it goes away when the test has passed, and stays to be
// looked at when DROVER_E2E_KEEP is set.
func Workdir(t *testing.T) string {
	t.Helper()
	dir := Must(os.MkdirTemp("", "drover-e2e-"))(t)
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("DROVER_E2E_KEEP") != "" {
			t.Logf("kept %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// MakeDir makes a directory and those above it.
func MakeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// RemoveTree removes a directory.
func RemoveTree(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// CopyTree copies a directory at rest.
func CopyTree(t *testing.T, from, to string) {
	t.Helper()
	MakeDir(t, filepath.Dir(to))
	if out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copying %s: %v\n%s", from, err, out)
	}
}

// Start starts a process that is killed at the end of the test, and whose last lines are shown when the test fails.
func Start(t *testing.T, c harness.Command) *harness.Process {
	t.Helper()
	p := Must(harness.Start(c))(t)
	t.Cleanup(func() {
		running := p.Running()
		p.Kill()
		if t.Failed() {
			t.Logf("%s (running: %v) wrote last:\n%s", c.Name, running, p.Tail(25))
		}
	})
	return p
}

// Succeed runs a command to its end, which must be a good one, and returns what it wrote.
func Succeed(t *testing.T, limit time.Duration, c harness.Command) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	code, output, err := harness.Run(ctx, c)
	if err != nil || code != 0 {
		t.Fatalf("%s %s: exit code %d, %v\n%s", c.Name, strings.Join(c.Args, " "), code, err, output)
	}
	return output
}

// RequireExit runs drover to its end. An error is told in one line, which is returned and holds all of says.
func RequireExit(t *testing.T, want int, c harness.Command, says ...string) (line string) {
	t.Helper()
	return RequireEnd(t, want, Start(t, c), says...)
}

// RequireEnd waits for the end of a process as RequireExit does.
func RequireEnd(t *testing.T, want int, p *harness.Process, says ...string) (line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("%s: %v\n%s", p.Name, err, p.Tail(20))
	}
	if code != want {
		t.Fatalf("%s %s: exit code %d, want %d\n%s", p.Name, strings.Join(p.Args, " "), code, want, p.Tail(20))
	}
	output := p.Output()
	if strings.Contains(output, "goroutine ") || strings.Contains(output, "DATA RACE") {
		t.Errorf("%s wrote a stack trace:\n%s", p.Name, output)
	}
	if want == 0 {
		return ""
	}
	var lines []string
	for text := range strings.Lines(output) {
		if strings.HasPrefix(text, "drover: ") {
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	if len(lines) != 1 {
		t.Fatalf("%s gave %d lines that begin with \"drover: \", want 1:\n%s", p.Name, len(lines), output)
	}
	t.Logf("exit %d: %s", code, lines[0])
	for _, part := range says {
		if !strings.Contains(lines[0], part) {
			t.Errorf("the line does not say %q: %s", part, lines[0])
		}
	}
	return lines[0]
}

// RequireEqual compares the databases of two geth datadirs that nobody has open.
func RequireEqual(t *testing.T, left, right string) {
	t.Helper()
	differences := Must(harness.Compare(harness.Chaindata(left), harness.Chaindata(right)))(t)
	if differences.Count != 0 || differences.Keys == 0 {
		t.Fatalf("databases differ: %s", differences)
	}
	t.Logf("databases equal: %d keys, %d frozen blocks", differences.Keys, differences.Frozen)
}

// Kill9 kills a process that one of ours started.
func Kill9(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

// Gone waits until the processes have ended.
func Gone(t *testing.T, pids ...int) {
	t.Helper()
	Until(t, time.Minute, func(context.Context) error {
		for _, pid := range pids {
			if harness.Alive(pid) {
				return fmt.Errorf("process %d is alive", pid)
			}
		}
		return nil
	})
}

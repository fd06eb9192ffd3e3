//go:build soak

package kafkae2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// workdir is a directory with a short path, as sockets need: it goes away when the test has passed, and stays to be
// looked at when DROVER_E2E_KEEP is set.
func workdir(t *testing.T) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "drover-e2e-"))(t)
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("DROVER_E2E_KEEP") != "" {
			t.Logf("kept %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// start starts a process that is killed at the end of the test, and whose last lines are shown when the test fails.
func start(t *testing.T, c harness.Command) *harness.Process {
	t.Helper()
	p := must(harness.Start(c))(t)
	t.Cleanup(func() {
		running := p.Running()
		p.Kill()
		if t.Failed() {
			t.Logf("%s (running: %v) wrote last:\n%s", c.Name, running, p.Tail(25))
		}
	})
	return p
}

// succeed runs a command to its end, which must be a good one.
func succeed(t *testing.T, limit time.Duration, c harness.Command) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	code, output, err := harness.Run(ctx, c)
	if err != nil || code != 0 {
		t.Fatalf("%s %s: exit code %d, %v\n%s", c.Name, strings.Join(c.Args, " "), code, err, output)
	}
}

func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func port(t *testing.T) int { t.Helper(); return must(harness.FreePort())(t) }

func localhost(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// until polls with a deadline.
func until(t *testing.T, limit time.Duration, probe func(context.Context) error) {
	t.Helper()
	if err := harness.Until(t.Context(), limit, 50*time.Millisecond, probe); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies a directory at rest.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copying %s: %v\n%s", from, err, out)
	}
}

// requireEqual compares the databases of two geth datadirs that nobody has open.
func requireEqual(t *testing.T, left, right string) {
	t.Helper()
	differences := must(harness.Compare(harness.Chaindata(left), harness.Chaindata(right)))(t)
	if differences.Count != 0 || differences.Keys == 0 {
		t.Fatalf("databases differ: %s", differences)
	}
	t.Logf("databases equal: %d keys, %d frozen blocks", differences.Keys, differences.Frozen)
}

// requireEnd waits for the end of a process. An error is told in one line, which is returned and holds all of says.
func requireEnd(t *testing.T, want int, p *harness.Process, says ...string) (line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil || code != want {
		t.Fatalf("%s: exit code %d, want %d: %v\n%s", p.Name, code, want, err, p.Tail(20))
	}
	var lines []string
	for text := range strings.Lines(p.Output()) {
		if strings.HasPrefix(text, "drover: ") {
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	if len(lines) != 1 {
		t.Fatalf("%s gave %d lines that begin with \"drover: \", want 1:\n%s", p.Name, len(lines), p.Tail(20))
	}
	t.Logf("exit %d: %s", code, lines[0])
	for _, part := range says {
		if !strings.Contains(lines[0], part) {
			t.Errorf("the line does not say %q: %s", part, lines[0])
		}
	}
	return lines[0]
}

// number is the value of an environment variable.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	return must(strconv.Atoi(value))(t)
}

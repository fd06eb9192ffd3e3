package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(fakeGeth); dir != "" {
		if err := playGeth(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	harness.Cleanup()
	for _, dir := range fixtureDirs {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// workdir is a directory with a short path, as sockets need: it goes away when
// the test has passed, and stays to be looked at when DROVER_E2E_KEEP is set.
func workdir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("DROVER_E2E_KEEP") != "" {
			t.Logf("kept %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// start starts a process that is killed at the end of the test, and whose last
// lines are shown when the test fails.
func start(t *testing.T, c harness.Command) *harness.Process {
	t.Helper()
	p, err := harness.Start(c)
	if err != nil {
		t.Fatal(err)
	}
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
func succeed(t *testing.T, limit time.Duration, c harness.Command) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	code, output, err := harness.Run(ctx, c)
	if err != nil || code != 0 {
		t.Fatalf("%s %s: exit code %d, %v\n%s", c.Name, strings.Join(c.Args, " "), code, err, output)
	}
	return output
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

func geth(t *testing.T) string { t.Helper(); return must(harness.GethPath())(t) }

func drover(t *testing.T) string { t.Helper(); return must(harness.DroverPath())(t) }

func endpoints(t *testing.T) harness.Endpoints { t.Helper(); return must(harness.NewEndpoints())(t) }

func port(t *testing.T) int { t.Helper(); return must(harness.FreePort())(t) }

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

// requireEqual compares two chaindata directories that nobody has open.
func requireEqual(t *testing.T, left, right string) {
	t.Helper()
	differences := must(harness.Compare(left, right))(t)
	if differences.Count != 0 || differences.Keys == 0 {
		t.Fatalf("databases differ: %s", differences)
	}
	t.Logf("databases equal: %d keys, %d frozen blocks", differences.Keys, differences.Frozen)
}

// dial is nil when somebody listens on the port.
func dial(ctx context.Context, port int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", localhost(port))
	if err != nil {
		return err
	}
	return conn.Close()
}

func portText(port int) string { return fmt.Sprint(port) }

func localhost(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// kill9 kills a process that one of ours started.
func kill9(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

func removeTree(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func makeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// requireExit runs drover to its end. An error is told in one line, and the line
// holds all of says.
func requireExit(t *testing.T, want int, c harness.Command, says ...string) {
	t.Helper()
	requireEnd(t, want, start(t, c), says...)
}

// requireEnd waits for the end of a process as requireExit does.
func requireEnd(t *testing.T, want int, c *harness.Process, says ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code, err := c.Wait(ctx)
	output := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c.Name, err, c.Tail(20))
	}
	if code != want {
		t.Fatalf("%s %s: exit code %d, want %d\n%s", c.Name, strings.Join(c.Args, " "), code, want, c.Tail(20))
	}
	if strings.Contains(output, "goroutine ") || strings.Contains(output, "DATA RACE") {
		t.Errorf("%s wrote a stack trace:\n%s", c.Name, output)
	}
	if want == 0 {
		return
	}
	var lines []string
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "drover: ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("%s gave %d lines that begin with \"drover: \", want 1:\n%s", c.Name, len(lines), output)
	}
	t.Logf("exit %d: %s", code, strings.TrimSpace(lines[0]))
	for _, part := range says {
		if !strings.Contains(lines[0], part) {
			t.Errorf("the line does not say %q: %s", part, lines[0])
		}
	}
}

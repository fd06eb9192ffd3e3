package devcluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/e2e/harness"
	localgeth "github.com/drover-io/drover/tools/geth"
)

// output collects what the cluster prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running is a drover dev as a process, the way a person starts it.
type running struct {
	*harness.Process
	t *testing.T
}

func startDev(t *testing.T, dir string, args ...string) running {
	t.Helper()
	drover, err := harness.DroverPath()
	if err != nil {
		t.Fatal(err)
	}
	geth, err := localgeth.Path()
	if err != nil {
		t.Fatal(err)
	}
	p, err := harness.Start(harness.Command{
		Name: "dev", Path: drover, Log: t.TempDir(),
		Args: append([]string{"dev", "--geth", geth, "--datadir", dir, "--http.port", "18545"}, args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return running{p, t}
}

var statusPattern = regexp.MustCompile(`master #(\d+) .*replica1 #(\d+) \+[0-9.]+ ms  replica2 #(\d+) \+[0-9.]+ ms`)

// waitForBlock waits for a status line on which master and replicas have all reached a height.
func (r running) waitForBlock(height uint64) {
	r.t.Helper()
	err := harness.Until(context.Background(), 90*time.Second, 200*time.Millisecond, func(context.Context) error {
		if !r.Running() {
			return fmt.Errorf("it has ended:\n%s", r.Tail(20))
		}
		lines := statusPattern.FindAllStringSubmatch(r.Output(), -1)
		if len(lines) == 0 {
			return fmt.Errorf("no status line yet:\n%s", r.Tail(20))
		}
		for _, number := range lines[len(lines)-1][1:] {
			if n, _ := strconv.ParseUint(number, 10, 64); n < height {
				return fmt.Errorf("waiting for block %d:\n%s", height, r.Tail(3))
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// pids are the processes that work below a directory.
func pids(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && bytes.Contains(line, []byte(dir)) {
			found = append(found, file+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func (r running) endsCleanly(dir string) {
	r.t.Helper()
	// Ten seconds are what Ctrl-C is promised to take; the kill behind the deadline makes the test fail.
	if code, err := r.Stop(10 * time.Second); err != nil || code != 0 {
		r.t.Fatalf("exit code %d, %v:\n%s", code, err, r.Tail(20))
	}
	if left := pids(r.t, dir); len(left) > 0 {
		r.t.Fatalf("processes left behind:\n%s", strings.Join(left, "\n"))
	}
}

func TestDevClusterRunsGoesOnAndStartsOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	first := startDev(t, dir)
	first.waitForBlock(5)
	first.endsCleanly(dir)

	second := startDev(t, dir)
	second.waitForBlock(8)
	if n := firstMasterBlock(t, second.Output()); n < 5 {
		t.Errorf("the second run began at block %d: it did not go on from its data", n)
	}
	second.endsCleanly(dir)

	third := startDev(t, dir, "--fresh")
	third.waitForBlock(1)
	if n := firstMasterBlock(t, third.Output()); n >= 8 {
		t.Errorf("the run with --fresh began at block %d", n)
	}
	third.endsCleanly(dir)
}

func firstMasterBlock(t *testing.T, text string) uint64 {
	t.Helper()
	match := statusPattern.FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no status line in:\n%s", text)
	}
	n, err := strconv.ParseUint(match[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKilledDevClusterLeavesNoProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	dev := startDev(t, dir)
	dev.waitForBlock(2)
	if len(pids(t, dir)) < 6 {
		t.Fatalf("the fault cannot fire: only these run:\n%s", strings.Join(pids(t, dir), "\n"))
	}
	if err := dev.Kill(); err != nil {
		t.Fatal(err)
	}
	err := harness.Until(context.Background(), 10*time.Second, 50*time.Millisecond, func(context.Context) error {
		if left := pids(t, dir); len(left) > 0 {
			return fmt.Errorf("still there:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOtherPeoplesDirectoriesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Options{DataDir: dir, Fresh: true, Out: &output{}})
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want a refusal that names the directory", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("--fresh removed what it did not make")
	}
}

func TestStatusLineTellsWhatIsWrong(t *testing.T) {
	if got := lagText(admin.Status{Reasons: []string{"catching up"}}); got != " not ready: catching up" {
		t.Errorf("%q", got)
	}
	if got := lagText(admin.Status{Ready: true, Extra: map[string]any{"applyDelayMillis": 4.25}}); got != " +4.2 ms" {
		t.Errorf("%q", got)
	}
	if got := publishedText(map[string]any{"frames": 3.0, "bytes": 2500.0}); got != " (3 frames, 2.5 KB)" {
		t.Errorf("%q", got)
	}
}

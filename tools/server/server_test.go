package localserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/ops/process"
)

// The test binary is also the server, and the program that starts one: roleEnv says which.
const roleEnv = "DROVER_TEST_LOCALSERVER"

func TestMain(m *testing.M) {
	switch role, arg, _ := strings.Cut(os.Getenv(roleEnv), " "); role {
	case "":
		os.Exit(m.Run())
	case "serve":
		fmt.Fprintln(os.Stderr, http.ListenAndServe(arg, http.NotFoundHandler()))
	case "fail":
		fmt.Fprintln(os.Stderr, "the disk is on fire")
	case "own":
		s, err := Start(context.Background(), self("serve"))
		fmt.Println(s.PID(), err)
		select {}
	}
	os.Exit(1)
}

func self(role string) Options {
	return Options{Name: "self", Command: func(addr string) process.Command {
		return process.Command{Path: os.Args[0], Env: []string{roleEnv + "=" + role + " " + addr}}
	}}
}

func TestAServerComesBackOnItsPort(t *testing.T) {
	s := ForTest(t, self("serve"))
	pid := s.PID()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if s.PID() != 0 {
		t.Fatal("it is still running")
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Fatal("it still answers")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.PID() == 0 || s.PID() == pid {
		t.Fatalf("process %d after %d", s.PID(), pid)
	}
	resp, err := http.Get(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	s.Close()
	s.Close()
	if err := s.Restart(t.Context()); err == nil {
		t.Fatal("it started after Close")
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	_, err := Start(t.Context(), self("fail"))
	if err == nil || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Fatalf("%v", err)
	}
}

func TestAServerEndsWithAProgramThatIsKilled(t *testing.T) {
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), roleEnv+"=own")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer owner.Wait()
	defer owner.Process.Kill()
	var pid int
	var said string
	if _, err := fmt.Fscanln(out, &pid, &said); err != nil || pid == 0 {
		t.Fatalf("process %d, %q, %v", pid, said, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ended(pid) {
		select {
		case <-ctx.Done():
			t.Fatalf("process %d is still there", pid)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ended: nobody may wait for the orphan where this runs in a container, and then it stays a zombie.
func ended(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z")
}

func TestAnInstallationIsWholeOrAbsent(t *testing.T) {
	target := filepath.Join(t.TempDir(), "bin", "tool")
	broken := errors.New("broken")
	err := Install(target, func(partial string) error {
		return errors.Join(os.WriteFile(partial, nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("%v", err)
	}
	if left, _ := filepath.Glob(target + "*"); len(left) != 1 { // the lock
		t.Fatalf("left: %v", left)
	}
	made := 0
	for range 2 {
		err := Install(target, func(partial string) error { made++; return os.WriteFile(partial, nil, 0o755) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(target); err != nil || made != 1 {
		t.Fatalf("made %d times, %v", made, err)
	}
}

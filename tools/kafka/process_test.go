package localkafka

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

const helperEnv = "DROVER_LOCALKAFKA_HELPER"

// TestMain turns the test binary into a program that starts a broker, prints its process id and waits to be killed.
func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		os.Exit(m.Run())
	}
	c, err := New(Options{Dir: os.Getenv(helperEnv)})
	if err == nil {
		err = c.Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.PID(1))
	select {}
}

func TestBrokersEndWithAProgramThatIsKilled(t *testing.T) {
	ctx := deadline(t)
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with its parent")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), helperEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := bufio.NewScanner(out)
	line.Scan()
	pid, err := strconv.Atoi(line.Text())
	if err != nil {
		cmd.Process.Kill()
		t.Fatalf("the program said %q, want a process id", line.Text())
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the broker, process %d, does not run: %v", pid, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	err = poll(ctx, func() error {
		if !gone(pid) {
			return errors.New("the broker outlived its program")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

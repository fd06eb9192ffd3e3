package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// outputGrace is how long geth's last output may take after its end when a descendant keeps the pipe open.
const outputGrace = 2 * time.Second

// gethProcess is a geth that this process started.
type gethProcess struct {
	pid  int
	done chan struct{}
	code int // valid once done is closed
}

// startGeth starts geth so that it cannot outlive this process. Linux ties the parent-death signal to the thread
// that forked, not to the process, so one goroutine keeps its thread from before the fork until geth has ended.
//
// geth gets a process group of its own: a Ctrl-C on the terminal must reach it through Drover, in order. The
// parent-death signal reaches the direct child alone: a wrapper script has to end in `exec geth …`, which
// watchSource verifies.
func startGeth(argv []string, stdout, stderr io.Writer) (*gethProcess, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = outputGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	p := &gethProcess{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.code = exitCode(cmd.Wait())
		endGroup(p.pid)
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start geth: %w", err)
	}
	return p, nil
}

// endGroup kills what a wrapper left behind, which would write unseen, and waits until it is gone: its last writes
// have to be there when the journals are drained. The wait is bounded because a zombie that nobody reaps (this process
// may be PID 1 of a container) still counts as a member of the group.
func endGroup(group int) {
	for deadline := time.Now().Add(outputGrace); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if syscall.Kill(-group, syscall.SIGKILL) != nil {
			return
		}
	}
}

// exitCode turns the error of exec.Cmd.Wait into a shell's exit code: 128 plus the signal for a killed process.
func exitCode(err error) int {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0 // ErrWaitDelay: the process itself ended with 0
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// alive says whether the process runs.
func (p *gethProcess) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks geth to end, kills it when it has not after limit, and returns once it is gone: true when it ended by
// itself. It may be called more than once.
func (p *gethProcess) stop(limit time.Duration) (clean bool) {
	if !p.alive() {
		return true
	}
	_ = syscall.Kill(-p.pid, syscall.SIGTERM)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.done
	return false
}

// supervisor keeps the one geth of a Master, so that every path that ends the Master ends geth too.
type supervisor struct {
	mu      sync.Mutex
	process *gethProcess
}

func (s *supervisor) set(p *gethProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
}

func (s *supervisor) get() *gethProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// awaitLock polls take until it succeeds or limit has passed: a geth whose supervisor was killed a moment ago may
// still be closing.
func awaitLock(ctx context.Context, limit time.Duration, take func() (func(), error), retry func(error) bool) (func(), error) {
	deadline := time.Now().Add(limit)
	for {
		release, err := take()
		if err == nil || !retry(err) || time.Now().After(deadline) {
			return release, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

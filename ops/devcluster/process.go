package devcluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a child that ends with this process, whatever ends it.
type process struct {
	name    string
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed once the child has been waited for
	err     error         // how it ended; valid after exited
}

// startProcess starts argv with its output in dir/NAME.log. The child gets a process group of its own, so that Ctrl-C reaches
// only this process, which then ends its children in order. Should this process be killed, the kernel kills the child.
func startProcess(dir, name string, argv ...string) (*process, error) {
	logPath := filepath.Join(dir, name+".log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer logFile.Close()

	p := &process{name: name, logPath: logPath, exited: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread that started the child ends, so that thread must outlive it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop asks the child to end and kills it when it has not ended within limit.
func (p *process) stop(limit time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(limit):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// failure describes why the child ended, with the last line of its log.
func (p *process) failure() error {
	return fmt.Errorf("%s ended (%v): %s; its log is %s", p.name, p.err, lastLine(p.logPath), p.logPath)
}

// waitFor polls probe until it returns nil; it fails when ctx ends, the limit passes or the child ends.
func (p *process) waitFor(ctx context.Context, limit time.Duration, probe func(context.Context) error) error {
	deadline := time.After(limit)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.exited:
			return p.failure()
		case <-deadline:
			return fmt.Errorf("%s is not up after %s (%w); its log is %s", p.name, limit, err, p.logPath)
		case <-ticker.C:
		}
	}
}

// lastLine returns the last line of a log file that says something.
func lastLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "drover: ") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}

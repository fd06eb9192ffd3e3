// Package process runs programs as children on this machine: started by their argument lists, with their output in files,
// ended by their ids, and never outliving this process.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// ErrStillRunning is returned when a process has not ended by the deadline.
var ErrStillRunning = errors.New("process has not ended")

// Command says which process to start.
type Command struct {
	Name string   // for messages and the log file's name
	Path string   // executable
	Args []string // without the executable's name
	Env  []string // added to this process's environment
	Dir  string   // working directory; empty means this process's
	Log  string   // directory of the log file, to which both outputs are appended
	// OwnGroup puts the child into a process group of its own, so that Ctrl-C on the terminal does not reach it: whoever
	// started it ends it, in order.
	OwnGroup bool
}

// Process is a running child. It is killed by the kernel when this process
// ends, however it ends.
type Process struct {
	Command
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // of Wait, valid once done is closed
	logPath string
	logFrom int64 // where this process's part of the log begins
}

// spawner starts processes on a thread that lives as long as the program: the
// kernel's parent-death signal follows the thread, not the process.
var spawner = func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

// Start starts the process and returns at once.
func Start(c Command) (*Process, error) {
	p := &Process{Command: c, done: make(chan struct{}), logPath: filepath.Join(c.Log, c.Name+".log")}
	file, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	p.logFrom = info.Size()
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: c.OwnGroup}
	started := make(chan error)
	spawner <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run starts the process, waits for its end and returns its exit code and what
// it wrote.
func Run(ctx context.Context, c Command) (code int, output string, err error) {
	p, err := Start(c)
	if err != nil {
		return -1, "", err
	}
	defer p.Kill()
	code, err = p.Wait(ctx)
	return code, p.Output(), err
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end. The code is -1 when a signal ended the process.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("%s: %w: %w", p.Name, ErrStillRunning, ctx.Err())
	}
}

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Stop asks for the end by SIGTERM, waits for at most limit and kills then,
// which is an error.
func (p *Process) Stop(limit time.Duration) (code int, err error) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return -1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if code, err = p.Wait(ctx); err != nil {
		return code, errors.Join(fmt.Errorf("after SIGTERM and %s: %w", limit, err), p.Kill())
	}
	return code, nil
}

// Pause stops the process with SIGSTOP; Resume lets it go on.
func (p *Process) Pause() error { return p.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// CPU is the user and system time that the process and its ended children used.
// It is known once the process has ended.
func (p *Process) CPU() time.Duration {
	<-p.done
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Output is what the process has written so far, both outputs together.
func (p *Process) Output() string {
	content, err := os.ReadFile(p.logPath)
	if err != nil || int64(len(content)) < p.logFrom {
		return ""
	}
	return string(content[p.logFrom:])
}

// Tail is the last n lines of the output.
func (p *Process) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// LogPath is the file that takes the outputs.
func (p *Process) LogPath() string { return p.logPath }

// Err is how the process ended; nil for exit code 0. It is known once the process has ended.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Children are the process ids of the direct children, found in /proc.
func (p *Process) Children() ([]int, error) {
	pattern := fmt.Sprintf("/proc/%d/task/*/children", p.Pid())
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range bytes.Fields(content) {
			var pid int
			if _, err := fmt.Sscan(string(field), &pid); err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Alive says whether a process with this id exists and is not a zombie.
func Alive(pid int) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

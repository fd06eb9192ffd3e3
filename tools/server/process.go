package localserver

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// A spawner starts processes from one operating system thread. Linux ends a process with its parent *thread* when
// asked to (PR_SET_PDEATHSIG), and Go moves goroutines between threads and ends idle ones: so the thread is locked and
// stays until close.
type spawner struct {
	work chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(s.done)
		for f := range s.work {
			f()
		}
	}()
	return s
}

// close may be called once, when no process is left.
func (s *spawner) close() {
	close(s.work)
	<-s.done
}

type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone and was waited for
	err    error         // how it ended; read after exited
}

// start runs cmd with its output appended to the file log.
func (s *spawner) start(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, // Ctrl-C at a terminal is for the program that owns the server
	}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error)
	s.work <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		if p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.exited)
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal does nothing to a process that has ended: os.Process never reaches another one that got its id.
func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.exited
	return nil
}

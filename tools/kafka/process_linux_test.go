package localkafka

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// The main thread never ends, so it must not be the one that the test below waits for: init runs on it, and keeps it for
// the main goroutine.
func init() { runtime.LockOSThread() }

func TestBrokersOutliveTheThreadThatStartedThem(t *testing.T) {
	ctx := deadline(t)
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	started := make(chan error, 1)
	thread := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with this goroutine
		thread <- syscall.Gettid()
		started <- c.Start(ctx)
	}()
	tid := <-thread
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	err = poll(ctx, func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); err == nil {
			return errors.New("the thread is still there")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(ctx); err != nil {
		t.Fatalf("the broker ended with the thread that called Start: %v", err)
	}
}

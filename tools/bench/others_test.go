package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// burn is a process that uses one processor until it is ended.
func burn(t *testing.T) *os.Process {
	t.Helper()
	c := exec.Command("sh", "-c", "while :; do :; done")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Process.Kill(), c.Wait() })
	return c.Process
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestCPUOfChildrenIsTheFamilysAndStaysSoWhenTheyEnd(t *testing.T) {
	before := familyCPU(os.Getpid())
	child := burn(t)
	until(t, "the child's time counts", func() bool { return familyCPU(child.Pid) >= 200*time.Millisecond })
	with := familyCPU(os.Getpid())
	if with-before < 200*time.Millisecond {
		t.Errorf("the child used 200 ms, this process with it %v", with-before)
	}
	_ = child.Kill()
	_, _ = child.Wait()
	if after := familyCPU(os.Getpid()); after < with {
		t.Errorf("%v with the child, %v after its end", with, after)
	}
}

func TestOthersIsWhatThisProgramDidNotStart(t *testing.T) {
	child := burn(t)
	before := machineCPU()
	until(t, "the machine's time moves on", func() bool { return machineCPU()-before >= 300*time.Millisecond })
	parents := map[int]int{child.Pid: os.Getpid(), os.Getpid(): 1}
	if descends(parents, os.Getpid(), child.Pid) || !descends(parents, child.Pid, os.Getpid()) || descends(map[int]int{7: 8, 8: 7}, 7, 9) {
		t.Error("who descends from whom is told wrongly")
	}
	now := time.Now()
	all, none := others{at: now.Add(-time.Second)}, others{at: now.Add(-time.Second), used: machineCPU()}
	if all.share() == 0 || none.share() == 1 {
		t.Error("the share does not follow the time used")
	}
}

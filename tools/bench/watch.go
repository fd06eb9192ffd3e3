package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/drover-io/drover/e2e/harness"
)

// usage is what a process used.
type usage struct {
	wall  time.Duration // from its start to its end
	cpu   time.Duration // user and system time of the process alone, without its children
	child time.Duration // from when its first child was seen to when it was gone; 0 without one
	kids  time.Duration // CPU time of its children
	peak  float64       // largest resident set, in MB
}

// sampleEvery is how often /proc is read: what a process uses after the last sample is not seen.
const sampleEvery = 20 * time.Millisecond

// timed runs the command to its end, which must be exit code 0.
func (b *bench) timed(ctx context.Context, c harness.Command) (usage, error) {
	began := time.Now()
	p, err := b.start(c)
	if err != nil {
		return usage{}, err
	}
	u := watch(ctx, p)
	u.wall = time.Since(began)
	return u, b.ended(ctx, p, &u)
}

// ended checks the exit code of a process that was watched to its end.
func (b *bench) ended(ctx context.Context, p *harness.Process, u *usage) error {
	code, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("%s ended with exit code %d:\n%s", p.Name, code, p.Tail(15))
	}
	if u.child > 0 {
		u.kids = max(0, p.CPU()-u.cpu)
	} else {
		u.cpu = p.CPU()
	}
	return nil
}

// watch samples the process until it ends. Of usage, wall is left to the caller.
func watch(ctx context.Context, p *harness.Process) usage {
	var u usage
	var child int
	var born time.Time
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if cpu, ok := cpuOf(p.Pid()); ok {
			u.cpu = cpu
		}
		u.peak = max(u.peak, memoryOf(p.Pid(), "VmHWM"))
		switch {
		case child == 0:
			if children, err := p.Children(); err == nil && len(children) > 0 {
				child, born = children[0], time.Now()
			}
		case !born.IsZero() && !harness.Alive(child):
			u.child, born = time.Since(born), time.Time{}
		}
		select {
		case <-p.Done():
			if !born.IsZero() {
				u.child = time.Since(born)
			}
			return u
		case <-ctx.Done():
			return u
		case <-tick.C:
		}
	}
}

// cpuOf is the user and system time of a process, without its children.
func cpuOf(pid int) (time.Duration, bool) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest) // from the third on: state is fields[0]
	if len(fields) < 13 || fields[0] == "Z" {
		return 0, false
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, which Linux fixes for all programs
	return time.Duration(ticks) * time.Second / perSecond, true
}

// memoryOf is a field of /proc/PID/status, such as VmRSS, in MB of 10^6 bytes; 0 when the process has ended.
func memoryOf(pid int, field string) float64 {
	kib, err := strconv.ParseFloat(strings.TrimSuffix(procField(fmt.Sprintf("/proc/%d/status", pid), field), " kB"), 64)
	if err != nil {
		return 0
	}
	return kib * 1024 / 1e6
}

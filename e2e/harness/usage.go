package harness

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// Usage is what a living process has used so far, without its children.
type Usage struct {
	CPU      time.Duration
	Resident int64 // bytes of memory now
	Peak     int64 // bytes of memory at most since its start
}

// clockTick is the unit of CPU times in /proc on every architecture that Go
// knows under Linux (USER_HZ).
const clockTick = 10 * time.Millisecond

// ReadUsage reads /proc for a process.
func ReadUsage(pid int) (u Usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The command's name stands in parentheses and may hold anything; the
	// fields behind it begin with the state, field 3.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return u, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var user, system int64
	if _, err := fmt.Sscan(string(fields[11])+" "+string(fields[12]), &user, &system); err != nil {
		return u, err
	}
	u.CPU = time.Duration(user+system) * clockTick
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		for key, field := range map[string]*int64{"VmRSS": &u.Resident, "VmHWM": &u.Peak} {
			if name == key {
				if _, err := fmt.Sscanf(value, "%d kB", field); err != nil {
					return u, err
				}
				*field <<= 10
			}
		}
	}
	return u, nil
}

// Watch reads the process's usage every interval until it ends, and returns the
// last that could be read.
func (p *Process) Watch(interval time.Duration) Usage {
	var last Usage
	for {
		if u, err := ReadUsage(p.Pid()); err == nil && u.Peak > 0 { // a zombie has no memory
			last = u
		}
		select {
		case <-p.done:
			return last
		case <-time.After(interval):
		}
	}
}

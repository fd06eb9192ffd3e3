package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// othersLimit is the share of the machine above which a verdict on a time proves nothing: other programs had the cores.
// The kernel's own threads, which write out what is measured here, count as others.
const othersLimit = 0.10

// others measures what programs that this one did not start used of the machine's processors. The load average
// cannot tell: it holds what this program did a minute ago.
type others struct {
	used time.Duration // at the last look
	at   time.Time
}

// share is the part of all processors, from 0 to 1, that others had since the last call. What cannot be read, on another
// system than Linux, counts as nothing.
func (o *others) share() float64 {
	used, at := machineCPU()-familyCPU(os.Getpid()), time.Now()
	share := float64(used-o.used) / (float64(at.Sub(o.at)) * float64(runtime.NumCPU()))
	o.used, o.at = used, at
	return min(max(share, 0), 1)
}

// userHZ is the unit of CPU times in /proc, which Linux fixes for all programs.
const userHZ = 100

func ticks(fields ...string) time.Duration {
	var sum int64
	for _, field := range fields {
		n, _ := strconv.ParseInt(field, 10, 64)
		sum += n
	}
	return time.Duration(sum) * time.Second / userHZ
}

// machineCPU is the time that all processors were not idle: what the host took (steal) is somebody's too.
func machineCPU() time.Duration {
	content, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(content), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal (proc_stat(5))
	if len(fields) < 9 {
		return 0
	}
	return ticks(fields[1], fields[2], fields[3], fields[6], fields[7], fields[8])
}

// familyCPU is the time of a process and its descendants, with those that have ended and were waited for.
func familyCPU(pid int) time.Duration {
	entries, _ := os.ReadDir("/proc")
	used, parent := make(map[int]time.Duration), make(map[int]int)
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(content), ") ")
		fields := strings.Fields(rest) // from the third on: state, then the parent
		if len(fields) < 15 {
			continue
		}
		parent[id], _ = strconv.Atoi(fields[1])
		used[id] = ticks(fields[11:15]...)
	}
	var sum time.Duration
	for id := range used {
		if descends(parent, id, pid) {
			sum += used[id]
		}
	}
	return sum
}

func descends(parent map[int]int, id, ancestor int) bool {
	for range 64 { // a listing taken while processes come and go might hold a circle
		if id == ancestor {
			return true
		}
		if id <= 1 {
			return false
		}
		id = parent[id]
	}
	return false
}

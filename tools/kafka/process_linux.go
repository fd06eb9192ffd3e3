package localkafka

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// stopped reports whether SIGSTOP has reached every thread of the process.
func stopped(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		if err != nil {
			return false
		}
		// proc(5): the state follows the command, which ends with the last ")".
		if i := bytes.LastIndexByte(stat, ')'); i < 0 || !strings.HasPrefix(string(stat[i:]), ") T") {
			return false
		}
	}
	return len(tasks) > 0
}

// leasePort keeps other clusters on this machine from choosing the same port, also while its broker is down. An
// abstract socket leaves nothing behind.
func leasePort(port int) (release func(), ok bool) {
	l, err := net.Listen("unix", fmt.Sprintf("@drover-localkafka-%d", port))
	if err != nil {
		return nil, false
	}
	return func() { l.Close() }, true
}

// ephemeralPorts is where the kernel takes the ports of outgoing connections from.
func ephemeralPorts() (low, high int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if _, err = fmt.Sscan(string(text), &low, &high); err == nil {
			return low, high
		}
	}
	return 32768, 60999
}

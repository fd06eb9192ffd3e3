package localkafka

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

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

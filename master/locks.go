package master

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// holders says which processes hold a flock(2) on the file, from /proc/locks. sure is false when the file system
// reports another device there than stat does (overlayfs, btrfs): then only the inode's number matched.
func holders(path string) (pids []int, sure bool) {
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return nil, false
	}
	file, err := os.Open("/proc/locks")
	if err != nil {
		return nil, false
	}
	defer file.Close()
	return parseLocks(bufio.NewScanner(file), major(stat.Dev), minor(stat.Dev), stat.Ino)
}

// parseLocks reads lines such as "1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF" (proc_locks(5)); waiting
// processes have "->" after the number and are left out.
func parseLocks(lines *bufio.Scanner, major, minor uint32, inode uint64) (pids []int, sure bool) {
	device := fmt.Sprintf("%02x:%02x:%d", major, minor, inode)
	suffix := fmt.Sprintf(":%d", inode)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], suffix) {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			pids = append(pids, pid)
			sure = sure || fields[5] == device
		}
	}
	return pids, sure
}

// The kernel's layout of st_dev as glibc decodes it (gnu_dev_major, gnu_dev_minor).
func major(dev uint64) uint32 { return uint32(dev>>8)&0xfff | uint32(dev>>32)&^0xfff }
func minor(dev uint64) uint32 { return uint32(dev)&0xff | uint32(dev>>12)&^0xff }

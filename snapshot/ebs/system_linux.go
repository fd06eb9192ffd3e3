package ebs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-io/drover/snapshot"
)

// Linux is the System of an EC2 instance. It wants root.
func Linux() System { return linux{sys: "/sys"} }

type linux struct {
	sys string
}

// VolumeOf follows dir's device to its disk, whose serial number is the volume's id on instances of the Nitro kind.
func (l linux) VolumeOf(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	disk, err := filepath.EvalSymlinks(fmt.Sprintf("%s/dev/block/%d:%d", l.sys, unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return "", fmt.Errorf("%w: %s is not on a block device: name the volume", snapshot.ErrUsage, dir)
	}
	for _, place := range []string{disk, filepath.Dir(disk)} { // the disk itself, or the disk of a partition
		if serial, err := os.ReadFile(filepath.Join(place, "device", "serial")); err == nil {
			if id := volumeID(string(serial)); id != "" {
				return id, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %s is not on an EBS volume that tells its id (LVM, RAID, or no Nitro instance): name the volume", snapshot.ErrUsage, dir)
}

// volumeID makes vol-0123… of the serial number vol0123….
func volumeID(serial string) string {
	rest, ok := strings.CutPrefix(strings.TrimSpace(serial), "vol")
	if !ok {
		return ""
	}
	return "vol-" + strings.TrimPrefix(rest, "-")
}

func (linux) Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

func (l linux) Device(volume, attachedAs string) (string, error) {
	serials, err := filepath.Glob(filepath.Join(l.sys, "block", "nvme*", "device", "serial"))
	if err != nil {
		return "", err
	}
	for _, path := range serials {
		if serial, err := os.ReadFile(path); err == nil && volumeID(string(serial)) == volume {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(filepath.Dir(path)))), nil
		}
	}
	// Instances of the Xen kind: the name as it was asked for, or with xvd for sd.
	for _, path := range []string{attachedAs, strings.Replace(attachedAs, "/dev/sd", "/dev/xvd", 1)} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", nil
}

func (linux) Mount(device, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// By mount(8), which finds out the file system. nouuid: XFS refuses a copy beside its original otherwise.
	kind, err := exec.Command("blkid", "-o", "value", "-s", "TYPE", device).Output()
	if err != nil {
		return fmt.Errorf("blkid finds no file system on %s: %w", device, err)
	}
	args := []string{"-o", "noatime", device, dir}
	if strings.TrimSpace(string(kind)) == "xfs" {
		args[1] += ",nouuid"
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (linux) Unmount(dir string) error {
	mounted, err := isMounted(dir)
	if err != nil || !mounted {
		return err
	}
	if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: unmounted meanwhile
		return err
	}
	return nil
}

func isMounted(dir string) (bool, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	all, err := mounts()
	return slices.ContainsFunc(all, func(m mounted) bool { return m.at == dir }), err
}

// Below looks the directory up in mountinfo, which knows of bind mounts (containers have them) what stat(2) does not.
func (linux) Below(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	all, err := mounts()
	if err != nil {
		return "", err
	}
	var best *mounted
	for i, m := range all { // a later one covers an earlier one at the same place
		if (m.at == "/" || dir == m.at || strings.HasPrefix(dir, m.at+"/")) && (best == nil || len(m.at) >= len(best.at)) {
			best = &all[i]
		}
	}
	if best == nil {
		return "", fmt.Errorf("%s is on no file system that /proc/self/mountinfo names", dir)
	}
	rest, err := filepath.Rel(best.at, dir)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(filepath.Join(best.root, rest), "/"), nil
}

// mounted is a line of mountinfo (proc_pid_mountinfo(5)): what of a file system is mounted, and where.
type mounted struct{ root, at string }

func mounts() ([]mounted, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	octal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mounted
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			all = append(all, mounted{octal.Replace(fields[3]), octal.Replace(fields[4])})
		}
	}
	return all, err
}

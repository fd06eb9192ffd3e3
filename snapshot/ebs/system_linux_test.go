package ebs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-io/drover/snapshot"
)

// fakeSys makes a /sys in which dir's device is a partition of nvme1n1, an EBS volume.
func fakeSys(t *testing.T, dir string) linux {
	t.Helper()
	sys := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(sys, "devices", "nvme1n1")
	for _, d := range []string{filepath.Join(disk, "device"), filepath.Join(disk, "nvme1n1p1"), filepath.Join(sys, "block"), filepath.Join(sys, "dev", "block")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "device", "serial"), []byte("vol0123456789abcdef0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{
		filepath.Join(sys, "block", "nvme1n1"): disk,
		filepath.Join(sys, "dev", "block", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))): filepath.Join(disk, "nvme1n1p1"),
	}
	for link, to := range links {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	return linux{sys: sys}
}

func TestVolumeAndDeviceAreFoundByTheSerialNumber(t *testing.T) {
	dir := t.TempDir()
	l := fakeSys(t, dir)
	if id, err := l.VolumeOf(dir); id != "vol-0123456789abcdef0" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	if device, err := l.Device("vol-0123456789abcdef0", "/dev/sdz9"); device != "/dev/nvme1n1" || err != nil {
		t.Errorf("%q, %v", device, err)
	}
	if device, err := l.Device("vol-0fedcba9876543210", "/dev/sdz9"); device != "" || err != nil {
		t.Errorf("one that is not there yet: %q, %v", device, err)
	}
}

func TestADirectoryThatIsOnNoEBSVolumeIsWrongUse(t *testing.T) {
	if _, err := (linux{sys: t.TempDir()}).VolumeOf(t.TempDir()); !errors.Is(err, snapshot.ErrUsage) {
		t.Errorf("%v", err)
	}
}

func TestUnmountOfWhatIsNotMountedIsNoError(t *testing.T) {
	dir := t.TempDir()
	if err := Linux().Unmount(dir); err != nil {
		t.Error(err)
	}
	if mounted, err := isMounted("/proc"); err != nil || !mounted {
		t.Errorf("/proc: %v, %v", mounted, err)
	}
	if err := Linux().Sync(dir); err != nil {
		t.Error(err)
	}
}

func TestTheWayBelowAFileSystemsRootIsKnown(t *testing.T) {
	below := func(dir string) string {
		t.Helper()
		rest, err := Linux().Below(dir)
		if err != nil {
			t.Fatal(err)
		}
		return rest
	}
	dir := t.TempDir()
	volume, bound := filepath.Join(dir, "vol ume"), filepath.Join(dir, "bound")
	for _, d := range []string{volume, bound} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mounting needs root:", err)
	}
	t.Cleanup(func() { unix.Unmount(volume, unix.MNT_DETACH) })
	inside := filepath.Join(volume, "data", "geth")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := below(inside); got != "data/geth" {
		t.Errorf("on a volume: %q", got)
	}
	if got := below(volume); got != "" {
		t.Errorf("the volume itself: %q", got)
	}
	if err := unix.Mount(filepath.Join(volume, "data"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(bound, unix.MNT_DETACH) })
	if got := below(filepath.Join(bound, "geth")); got != "data/geth" {
		t.Errorf("through a bind mount: %q", got)
	}
}

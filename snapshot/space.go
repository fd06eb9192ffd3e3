package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// checkSpace refuses to begin what cannot end well: when the target's file system has less free space than the files that are
// not there yet take up. errors.Is(err, syscall.ENOSPC). Somebody else may fill the disk afterwards; that is noticed, too.
func (r *fetcher) checkSpace(files []File) error {
	at, err := existing(r.dir)
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", at, err)
	}
	if fs.Blocks == 0 || fs.Bsize <= 0 {
		return nil // some network file systems do not tell
	}
	links := r.link != nil && sameDevice(r.link.root, at)
	block := int64(fs.Bsize) //nolint:unconvert // another type elsewhere
	var needed int64
	for i := range files {
		f := &files[i]
		if links && r.linkable(f) {
			continue
		}
		if fi, err := os.Lstat(r.path(f)); err == nil && fi.Size() == f.Size && !r.check {
			continue
		}
		needed += (f.Size + block - 1) / block * block
	}
	if free := int64(min(uint64(fs.Bavail), 1<<62/uint64(block))) * block; needed > free { //nolint:unconvert // another type elsewhere
		return fmt.Errorf("not enough space for %s: %s (%d bytes) are still to be written, %s (%d bytes) are free: make space, or name another directory: %w",
			r.dir, humanize.Bytes(uint64(needed)), needed, humanize.Bytes(uint64(free)), free, syscall.ENOSPC)
	}
	return nil
}

// existing is the directory, or the nearest one above it that there is.
func existing(dir string) (string, error) {
	for {
		_, err := os.Stat(dir)
		if err == nil || !os.IsNotExist(err) {
			return dir, err
		}
		dir = filepath.Dir(dir)
	}
}

// sameDevice tells whether hard links from one directory to the other can be made. Where it is wrong (one file system, mounted
// twice) the disk may still run full in the middle.
func sameDevice(a, b string) bool {
	var left, right unix.Stat_t
	return unix.Stat(a, &left) == nil && unix.Stat(b, &right) == nil && left.Dev == right.Dev
}

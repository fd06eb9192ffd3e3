package snapshot

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// sumCache remembers the checksums of pieces of files that did not change since, so that the next snapshot need not read
// them: by inode, time of modification to the nanosecond, size and offset. LevelDB never changes a table, and the freezer
// only its last files.
//
// It is a hint: a sum from it is used only for an object that the store holds under it, and what a snapshot is
// made of is checked by Verify. A line that is damaged or torn is passed over.
type sumCache struct {
	mu   sync.Mutex
	path string
	out  *bufio.Writer
	file *os.File
	old  map[stamp][32]byte
	now  map[stamp][32]byte // seen in this run: what the next one starts from
}

// stamp names a piece of a file's content.
type stamp struct {
	inode, offset, size uint64 // size of the whole file
	modified            int64  // nanoseconds
}

// settled is how old a file's time of modification has to be for a second change within the clock's tick to be out of the question.
const settled = 2 * time.Second

func stampOf(fi os.FileInfo, offset int64) stamp {
	return stamp{
		inode: fi.Sys().(*syscall.Stat_t).Ino, offset: uint64(offset), size: uint64(fi.Size()), modified: fi.ModTime().UnixNano(),
	}
}

func openSums(dir string) (*sumCache, error) {
	c := &sumCache{path: filepath.Join(dir, "sums"), old: make(map[stamp][32]byte), now: make(map[stamp][32]byte)}
	f, err := os.Open(c.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if s, sum, ok := parseSum(lines.Text()); ok {
				c.old[s] = sum
			}
		}
		if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return nil, err
		}
	}
	// Appended to while the run goes on, so that a killed one need not read again what it had read.
	c.file, err = os.OpenFile(c.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewWriter(c.file)
	_, err = c.out.WriteString("\n") // ends a torn line
	return c, err
}

func sumLine(s stamp, sum [32]byte) string {
	return fmt.Sprintf("%x %x %x %x %x\n", s.inode, s.modified, s.size, s.offset, sum)
}

func parseSum(line string) (s stamp, sum [32]byte, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 5 || len(fields[4]) != 2*len(sum) {
		return s, sum, false
	}
	var numbers [4]uint64
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.ParseUint(fields[i], 16, 63); err != nil {
			return s, sum, false
		}
	}
	s = stamp{inode: numbers[0], modified: int64(numbers[1]), size: numbers[2], offset: numbers[3]}
	_, err := hex.Decode(sum[:], []byte(fields[4]))
	return s, sum, err == nil
}

func (c *sumCache) get(s stamp) (sum [32]byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sum, ok = c.old[s]; ok {
		c.now[s] = sum
	}
	return sum, ok
}

// add remembers a sum that was taken of a file as it was at the time of the stamp.
func (c *sumCache) add(s stamp, sum [32]byte) {
	if time.Since(time.Unix(0, s.modified)) < settled {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now[s] = sum
	_, _ = c.out.WriteString(sumLine(s, sum))
}

// save keeps what the finished run saw, and forgets what is gone.
func (c *sumCache) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	tmp := c.path + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for s, sum := range c.now {
		if _, err := w.WriteString(sumLine(s, sum)); err != nil {
			break // Flush has it again
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, c.path)
}

func (c *sumCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Flush()
	c.file.Close()
}

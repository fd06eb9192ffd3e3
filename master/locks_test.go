package master

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-io/drover/chaindata"
)

func TestHolderOfTheDatabaseIsFoundInProcLocks(t *testing.T) {
	dir := t.TempDir()
	release, err := chaindata.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "LOCK")
	if pids, sure := holders(path); !slices.Equal(pids, []int{os.Getpid()}) || !sure {
		t.Errorf("held by us: got %v, sure %v", pids, sure)
	}
	release()
	if pids, _ := holders(path); len(pids) != 0 {
		t.Errorf("released: got %v", pids)
	}
	if pids, sure := holders(filepath.Join(dir, "absent")); len(pids) != 0 || sure {
		t.Errorf("absent file: got %v, sure %v", pids, sure)
	}
}

func TestProcLocksLines(t *testing.T) {
	const text = `1: FLOCK  ADVISORY  WRITE 100 08:01:131 0 EOF
1: -> FLOCK  ADVISORY  WRITE 101 08:01:131 0 EOF
2: POSIX  ADVISORY  WRITE 102 08:01:131 0 EOF
3: FLOCK  ADVISORY  WRITE 103 08:01:1131 0 EOF
4: FLOCK  ADVISORY  WRITE 0 08:01:131 0 EOF
5: FLOCK
6: FLOCK  ADVISORY  WRITE 104 00:2a:131 0 EOF
`
	pids, sure := parseLocks(bufio.NewScanner(strings.NewReader(text)), 8, 1, 131)
	if !slices.Equal(pids, []int{100, 104}) || !sure {
		t.Errorf("got %v, sure %v", pids, sure)
	}
	if pids, sure = parseLocks(bufio.NewScanner(strings.NewReader(text)), 7, 0, 131); !slices.Equal(pids, []int{100, 104}) || sure {
		t.Errorf("another device: got %v, sure %v", pids, sure)
	}
}

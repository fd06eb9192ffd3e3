package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// stageName is the directory, beside chaindata and so on its file system, in which snapshots are staged.
const stageName = "drover-snapshot"

// stage is a directory of this process's own. Its lock file is held as long as the process lives, so that the next
// run finds out which directories were left by a killed one, in whatever container that ran.
type stage struct {
	area string // where all of them are
	dir  string
	lock *os.File
}

// openStage removes what killed runs left in area, and makes a new directory in it.
func openStage(area string) (*stage, error) {
	if err := os.MkdirAll(area, 0o755); err != nil {
		return nil, err
	}
	if err := cleanStages(area); err != nil {
		return nil, fmt.Errorf("clean up %s: %w", area, err)
	}
	for {
		f, err := os.CreateTemp(area, "run-*.lock")
		if err != nil {
			return nil, err
		}
		held, err := lockFile(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		if held {
			s := &stage{area: area, dir: strings.TrimSuffix(f.Name(), ".lock"), lock: f}
			return s, os.Mkdir(s.dir, 0o755)
		}
		f.Close()
	}
}

func cleanStages(area string) error {
	entries, err := os.ReadDir(area)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		dir, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok {
			continue
		}
		path := filepath.Join(area, e.Name())
		if f := abandoned(path); f != nil {
			err = errors.Join(err, os.RemoveAll(filepath.Join(area, dir)))
			if err == nil {
				err = os.Remove(path)
			}
			f.Close()
		}
	}
	return err
}

// remove ends the stage. The directory goes first: without its lock file nobody would know whose it was.
func (s *stage) remove() error {
	err := os.RemoveAll(s.dir)
	if err == nil {
		err = os.Remove(s.lock.Name())
	}
	return errors.Join(err, s.lock.Close())
}

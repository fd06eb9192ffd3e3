package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	localgeth "github.com/drover-io/drover/tools/geth"
)

// DroverPath finds drover: DROVER_TEST_BIN, or builds it once for this process,
// with the race detector when DROVER_TEST_RACE is 1.
var DroverPath = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("DROVER_TEST_BIN"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("DROVER_TEST_BIN: %w", err)
		}
		return path, nil
	}
	root, err := localgeth.ModuleRoot()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "drover-bin-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "drover")
	args := []string{"build", "-o", path}
	if os.Getenv("DROVER_TEST_RACE") == "1" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/drover")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building drover: %w\n%s", err, out)
	}
	return path, nil
})

var built string

// Cleanup removes what DroverPath built. Call it once, at the end of TestMain.
func Cleanup() {
	if built != "" {
		os.RemoveAll(built)
	}
}

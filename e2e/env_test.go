package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/drover-io/drover/e2e/harness/rig"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(fakeGeth); dir != "" {
		if err := playGeth(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(rig.Main(m))
}

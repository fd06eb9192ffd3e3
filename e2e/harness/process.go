// Package harness runs real processes for end-to-end tests and benchmarks:
// geth, drover, and what is needed to drive and to compare them.
//
// Nothing here knows of package testing: everything returns errors, so that
// benchmarks can use it as well.
package harness

import (
	"context"

	"github.com/drover-io/drover/ops/process"
)

// Command says which process to start.
type Command = process.Command

// Process is a running child.
type Process = process.Process

// ErrStillRunning is returned when a process has not ended by the deadline.
var ErrStillRunning = process.ErrStillRunning

// Start starts the process and returns at once.
func Start(c Command) (*Process, error) { return process.Start(c) }

// Run starts the process, waits for its end and returns its exit code and what it wrote.
func Run(ctx context.Context, c Command) (code int, output string, err error) {
	return process.Run(ctx, c)
}

// Alive says whether a process with this id exists and is not a zombie.
func Alive(pid int) bool { return process.Alive(pid) }

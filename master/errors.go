package master

import (
	"errors"
	"fmt"
)

// What ends a Master, besides chaindata's and changelog's own errors (holes, corruption, fencing, unsupported
// sources), which come through wrapped.
var (
	// ErrUsage: options or geth's arguments do not fit together; nothing was started. Exit code 2.
	ErrUsage = errors.New("wrong use")

	// ErrNotOurs: the database does not belong to this change log: another cluster's or timeline's source, a copy, or
	// one that was never captured while the topic has frames already. A database may become the source of a change log
	// that exists by a takeover only.
	ErrNotOurs = errors.New("this database is not the source of this change log")

	// ErrUnpublished: the Master ended before everything in the journals was on the topic, because the brokers did not
	// answer in time. Nothing is lost: the rest is published at the next start, before geth runs.
	ErrUnpublished = errors.New("the journals hold writes that are not published yet")

	// ErrWrapped: geth runs as a descendant of the process that Drover started, out of reach of the signal that ends
	// geth when Drover is killed.
	ErrWrapped = errors.New("geth is not the process that Drover started")
)

// GethExitError says that geth ended by itself with a code other than 0; everything that it wrote is published.
type GethExitError struct {
	Code int // as a shell has it: 128 plus the signal's number for a killed process
}

// Error implements error.
func (e *GethExitError) Error() string { return fmt.Sprintf("geth ended with exit code %d", e.Code) }

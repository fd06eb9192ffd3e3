package schedule

import "errors"

// Errors of a Scheduler, besides snapshot's, changelog's and those of the Source.
var (
	// ErrLost means: no usable snapshot is one that the change log continues, so no replica can be started (exit code 1).
	ErrLost = errors.New("no replica can be started from a snapshot")
	// ErrNotOurs means: the datadir of OwnReplica holds something else than a replica of the scheduler's own (exit code 2).
	ErrNotOurs = errors.New("the datadir is not the scheduler's own")
	// ErrState means: state.json is damaged, foreign, or of a newer release.
	ErrState = errors.New("the scheduler's notes cannot be read")
)

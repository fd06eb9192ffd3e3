package replica

import "errors"

// What can go wrong besides the errors of the changelog and chaindata packages, as errors.Is sees it.
var (
	// ErrUsage means a wrong option, or a datadir that does not fit the others. Exit code 2.
	ErrUsage = errors.New("wrong configuration")
	// ErrDiverged means that the database and the stream do not fit together: the stream speaks of a block that the
	// database does not have, or geth found another head than the stream's. Exit code 5; the replica needs a new snapshot.
	ErrDiverged = errors.New("database and change log have diverged")
)

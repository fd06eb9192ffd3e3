package snapshot

import "errors"

// Errors of what is in a store, or of how it is used. Each is wrapped with one line that says what to do.
var (
	// ErrUsage means: an option is missing or wrong (exit code 2).
	ErrUsage = errors.New("wrong use")
	// ErrFutureFormat means: a newer release of Drover wrote it.
	ErrFutureFormat = errors.New("written by a newer release of Drover")
	// ErrForeign means: the file is not what Drover writes under that name.
	ErrForeign = errors.New("not a snapshot of Drover's")
	// ErrWrongCluster means: the source or the snapshot belongs to another cluster.
	ErrWrongCluster = errors.New("it belongs to another cluster")
	// ErrNoSnapshot means: the store holds none that was asked for.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrCorrupt means: content is missing or not what the manifest says (exit code 5).
	ErrCorrupt = errors.New("snapshot is damaged")
	// ErrNotEmpty means: the target of a restore holds something else already.
	ErrNotEmpty = errors.New("the datadir is not empty")
	// ErrBusy means: another create or prune works on the cluster's snapshots.
	ErrBusy = errors.New("another create or prune is at work")
	// ErrLeaseLost means: this run stood still for so long that another took over.
	ErrLeaseLost = errors.New("another run took over")
	// ErrHeadroom means: what was asked for would leave, or there already is, no snapshot that the change log continues.
	ErrHeadroom = errors.New("no usable snapshot is within the change log's retention")
	// ErrUnverified means: the snapshot was not verified yet.
	ErrUnverified = errors.New("the snapshot was not verified")
)

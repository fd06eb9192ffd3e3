package schedule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
)

// Source is what snapshots are taken of.
type Source interface {
	// String names it for people.
	String() string
	// Prepare brings a geth datadir into a state worth a snapshot. release is called when the snapshot was taken, or has failed.
	Prepare(ctx context.Context) (datadir string, release func(), err error)
}

// Live is a datadir that somebody else keeps current: a running master's or replica's.
func Live(datadir string) Source { return live(datadir) }

type live string

func (l live) String() string { return string(l) }

func (l live) Prepare(context.Context) (string, func(), error) { return string(l), func() {}, nil }

// ReplicaOptions are those of OwnReplica. All but Stale and Logger are needed.
type ReplicaOptions struct {
	// Datadir is the scheduler's alone: empty at first. It gets a mark, and may be emptied again.
	Datadir string
	// CatchUp restores the newest usable snapshot when there is no database in the datadir yet, and replays the topic up to
	// its end. When it returns nil, the database is closed.
	CatchUp func(ctx context.Context, datadir string) error
	// Stale says of CatchUp's error that the database cannot be caught up any more, so that it goes and CatchUp is called
	// again with an empty datadir. Default: changelog's ErrNotRetained, ErrTimelineMismatch and ErrHole.
	Stale  func(error) bool
	Logger *slog.Logger // default: none
}

// OwnReplica is a datadir that stands still between snapshots, and is caught up before each one. It burdens no node that serves.
func OwnReplica(opts ReplicaOptions) (Source, error) {
	if opts.Datadir == "" || opts.CatchUp == nil {
		return nil, fmt.Errorf("%w: a replica of the scheduler's own needs a --datadir", errUsage)
	}
	if opts.Stale == nil {
		opts.Stale = discontinued
	}
	opts.Logger = logger(opts.Logger)
	return &ownReplica{opts: opts}, nil
}

type ownReplica struct {
	opts ReplicaOptions
	lost atomic.Pointer[string] // why no replica can be started from a snapshot
}

// told is called with what is known of the snapshots: without one that the log continues, starting anew is of no use.
func (r *ownReplica) told(m *Measured) {
	if r.lost.Store(nil); m != nil && m.short(0) {
		r.lost.Store(&m.Reason)
	}
}

func (r *ownReplica) String() string { return "own replica in " + r.opts.Datadir }

// ownMark is the file that tells a datadir of a scheduler's own from one that must not be emptied.
const ownMark = "drover-scheduler"

// goingName is what a database is renamed to before it is removed: one that is half removed must not be opened.
const goingName = "drover-removing"

func (r *ownReplica) Prepare(ctx context.Context) (string, func(), error) {
	if err := r.claim(); err != nil {
		return "", nil, err
	}
	err := r.opts.CatchUp(ctx, r.opts.Datadir)
	if err != nil && ctx.Err() == nil && r.opts.Stale(err) {
		if lost := r.lost.Load(); lost != nil {
			return "", nil, fmt.Errorf("the scheduler's own replica cannot be caught up any more (%w), nor started anew (%s): take a snapshot of a running node "+
				"(drover snapshot create, then verify)", err, *lost)
		}
		r.opts.Logger.Warn("the scheduler's own replica cannot be caught up any more: it starts anew from a snapshot", "datadir", r.opts.Datadir, "cause", err)
		if err := r.empty(); err != nil {
			return "", nil, fmt.Errorf("empty %s: %w", r.opts.Datadir, err)
		}
		err = r.opts.CatchUp(ctx, r.opts.Datadir)
	}
	if err != nil {
		return "", nil, fmt.Errorf("catch up the scheduler's own replica: %w", err)
	}
	return r.opts.Datadir, func() {}, nil
}

func (r *ownReplica) empty() error {
	going := filepath.Join(r.opts.Datadir, goingName)
	if err := os.Rename(filepath.Join(r.opts.Datadir, "geth"), going); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(going)
}

// claim marks an empty datadir, and refuses one that holds something without the mark.
func (r *ownReplica) claim() error {
	entries, err := os.ReadDir(r.opts.Datadir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == ownMark }):
		return os.RemoveAll(filepath.Join(r.opts.Datadir, goingName)) // of a run that was killed
	case len(entries) > 0:
		return fmt.Errorf("%w: %s holds %s and more, and no file %s: name an empty --datadir, or make that file if the scheduler may empty the directory",
			ErrNotOurs, r.opts.Datadir, entries[0].Name(), ownMark)
	}
	if err := os.MkdirAll(r.opts.Datadir, 0o755); err != nil {
		return err
	}
	const text = "This datadir belongs to drover snapshot schedule, which may empty it.\n"
	return os.WriteFile(filepath.Join(r.opts.Datadir, ownMark), []byte(text), 0o644)
}

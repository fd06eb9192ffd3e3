package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// adopt makes a marked copy of a directory that somebody copied with cp or rsync, before anything opens the database:
// opening it takes a sequence, and a copy without a position is known by its own last sequence alone.
//
// Two kinds are accepted. A copy of a stopped master's directory came with the master's marker. A copy from before the
// master's first start has none, since a master marks its directory before its geth writes under capture; such a copy has
// to stand exactly where timeline 1 starts.
func (r *Replica) adopt(ctx context.Context) error {
	dir := r.opts.chaindata()
	state, err := chaindata.Inspect(dir)
	if err != nil {
		return nil // openDatabase says what is wrong
	}
	marker, err := chaindata.ReadMarker(dir)
	switch {
	case err == nil && marker.Role == chaindata.RoleSource && !marker.IsSource(dir):
		marker.Role, marker.Sequence = chaindata.RoleCopy, state.Sequence
		r.log.Info("the database is a copy of the master's", "timeline", marker.Timeline, "sequence", marker.Sequence)
		return chaindata.WriteMarker(dir, marker)
	case !errors.Is(err, chaindata.ErrNoMarker):
		return err
	}
	if has, err := hasPosition(dir); has || err != nil {
		return err
	}
	at := changelog.Position{Cluster: r.opts.Cluster, Timeline: 1, Sequence: state.Sequence, Offset: -1}
	if err := r.standsAtStart(ctx, at); err != nil {
		return err
	}
	r.log.Info("the database is a copy from before the master's first start", "sequence", at.Sequence)
	return chaindata.WriteMarker(dir, chaindata.Marker{
		Cluster: at.Cluster, Timeline: at.Timeline, Role: chaindata.RoleCopy, Sequence: at.Sequence,
	})
}

// hasPosition tells whether a replica has written to the database before. It changes nothing.
func hasPosition(dir string) (bool, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{ReadOnly: true})
	if err != nil {
		return false, fmt.Errorf("open the database %s: %w", dir, err)
	}
	defer db.Close()
	return db.Has(changelog.PositionKey, nil)
}

// standsAtStart checks that the frame which a database at the position reads next is the start of its timeline.
func (r *Replica) standsAtStart(ctx context.Context, at changelog.Position) error {
	refuse := func(why string) error {
		return fmt.Errorf("%w: the database in %s has neither a position nor a marker of the master it was copied from, and its sequence %d "+
			"is not where timeline 1 starts: %s; copy the datadir of the stopped master with its drover.json, or restore a snapshot",
			ErrUsage, r.opts.Datadir, at.Sequence, why)
	}
	offset, err := r.opts.Log.Join(ctx, at)
	switch {
	case errors.Is(err, changelog.ErrNotRetained), errors.Is(err, changelog.ErrHole), errors.Is(err, changelog.ErrTimelineMismatch):
		return refuse(err.Error())
	case err != nil:
		return err
	}
	if _, next, err := r.opts.Log.Bounds(ctx); err != nil || offset == next {
		return errors.Join(err, refuse("the change log has nothing behind it"))
	}
	reader := r.opts.Log.Read(offset)
	defer reader.Close()
	entry, err := reader.Next(ctx)
	if err != nil {
		return err
	}
	if entry.Frame.Kind != changelog.KindTimelineStart || entry.Frame.First != at.Sequence+1 {
		return refuse(fmt.Sprintf("offset %d goes on with a %s", offset, entry.Frame.Kind))
	}
	return nil
}

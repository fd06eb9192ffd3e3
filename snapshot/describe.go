package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// describe fills the manifest from the staged copy.
func (c *creation) describe(ctx context.Context, dir string, master bool) (*Manifest, error) {
	// The staged freezer has no data files; the source's only grows by what the copy knows nothing of.
	d, err := chaindata.Describe(dir, c.opts.Ancient)
	if err != nil {
		return nil, err
	}
	at, role, err := positionOf(d, c.opts.Chaindata)
	if err != nil {
		return nil, err
	}
	if master {
		role = RoleMaster
	}
	if at.Cluster != c.opts.Cluster {
		return nil, fmt.Errorf("%w: %s is a database of cluster %q, --cluster says %q", ErrWrongCluster, c.opts.Chaindata, at.Cluster, c.opts.Cluster)
	}
	m := &Manifest{
		Cluster: at.Cluster, Timeline: at.Timeline, Sequence: at.Sequence, Offset: at.Offset,
		Head: Head{
			Number: d.Head.Number, Time: d.Head.Time,
			Hash: fmt.Sprintf("0x%x", d.Head.Hash), Root: fmt.Sprintf("0x%x", d.Head.Root),
		},
		Genesis: fmt.Sprintf("0x%x", d.Genesis), DatabaseVersion: d.DatabaseVersion,
		GethVersion: c.opts.GethVersion, DroverVersion: c.opts.DroverVersion, Node: c.opts.Node, Role: role,
	}
	if m.Offset < 0 && c.opts.Topic != nil {
		next, err := c.opts.Topic.FindSequence(ctx, at.Timeline, at.Sequence)
		switch {
		case errors.Is(err, changelog.ErrNotRetained):
			return nil, fmt.Errorf("the source %s stands before all that the change log retains, so nothing could start from a snapshot of it: %w",
				c.opts.Chaindata, err)
		case err != nil:
			c.opts.Logger.Warn("the snapshot's Kafka offset is not known: its headroom cannot be told", "cause", err)
		default:
			m.Offset = next - 1
		}
	}
	return m, nil
}

// positionOf tells where a copied database stands, by the rule that a replica has when it opens one: what it keeps in the
// database counts, unless the marker is of a later timeline (a promoted replica keeps its last position from before).
func positionOf(d chaindata.Description, source string) (at changelog.Position, role string, err error) {
	if d.Position != nil {
		if at, err = changelog.UnmarshalPosition(d.Position); err != nil {
			return at, "", fmt.Errorf("position in the database %s: %w", source, err)
		}
		if d.Marker == nil || d.Marker.Timeline <= at.Timeline {
			return at, RoleReplica, nil
		}
	}
	if d.Marker == nil {
		return at, "", fmt.Errorf("%w: %s was never a master's nor a replica's: it has neither a position nor a marker; "+
			"let drover master follow it first", ErrUsage, source)
	}
	at = changelog.Position{Cluster: d.Marker.Cluster, Timeline: d.Marker.Timeline, Sequence: d.State.Sequence, Offset: -1}
	if d.Marker.Sequence != 0 {
		at.Sequence = d.Marker.Sequence
	}
	return at, RoleCopy, nil
}

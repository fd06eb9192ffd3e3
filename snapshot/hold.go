package snapshot

import (
	"context"
	"fmt"
	"log/slog"
)

// Lease is held by one process of a cluster at a time, by a name. Create and Prune take one named "writer" themselves.
type Lease struct{ lease *lease }

// Hold takes the lease CLUSTER/leases/NAME.json and renews it until Release. held ends when the lease is lost (its cause is
// ErrLeaseLost) or ctx ends. A holder that was killed on this machine is known at once to be dead; one on another
// machine after it has not renewed the lease for half a minute, for so long Hold waits. ErrBusy, with who holds it, when it lives.
func Hold(ctx context.Context, store Store, cluster, name, purpose string, log *slog.Logger) (l *Lease, held context.Context, err error) {
	if err := checkClusterAndStore(cluster, store); err != nil {
		return nil, nil, err
	}
	key := keys(cluster).lease(name)
	if err := checkKey(key); err != nil {
		return nil, nil, fmt.Errorf("%w: lease: %w", ErrUsage, err)
	}
	inner, held, err := acquire(ctx, store, key, purpose, logger(log))
	if err != nil {
		return nil, nil, err
	}
	return &Lease{inner}, held, nil
}

// Release gives the lease up. Safe to call twice.
func (l *Lease) Release() { l.lease.release() }

package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drover-io/drover/changelog"
)

const (
	// aheadLimit is how long a copy may stand before the topic has got as far: a master that was stopped without brokers
	// publishes the rest when it starts.
	aheadLimit = 30 * time.Second
	aheadPoll  = 500 * time.Millisecond
)

// confirm holds the database against the topic's end before anything is written to it: it has to be of the same chain, and
// the topic has to have got as far as the database.
func (r *Replica) confirm(ctx context.Context, db *opened) error {
	for began := time.Now(); ; {
		tail, err := r.opts.Log.Tail(ctx)
		switch {
		case errors.Is(err, ctx.Err()) && err != nil:
			return err
		case err != nil:
			return fmt.Errorf("look at the end of the change log: %w", err)
		}
		if genesis := tail.Genesis(); genesis != "" && !strings.EqualFold(genesis, db.genesis.Hex()) {
			return otherChain(genesis, db.genesis.Hex(), tail.Next-1)
		}
		if db.fresh && db.at.Sequence == tail.Sequence+1 {
			// goleveldb leaves a sequence unused when somebody opens the database (chaindata.State.Reopened), to look at it,
			// say. Were it a batch after all, applying that once more would change nothing.
			db.at.Sequence = tail.Sequence
		}
		if tail.Damaged != nil || tail.Timeline != db.at.Timeline || db.at.Sequence <= tail.Sequence {
			return nil // what else speaks against it shows when joining or reading
		}
		if !db.fresh || time.Since(began) > aheadLimit {
			return fmt.Errorf("%w: this database stands at %s, the change log ends at sequence %d: it lost what it had, or the database "+
				"is not of this cluster; restore a snapshot", changelog.ErrTruncated, db.at, tail.Sequence)
		}
		r.log.Warn("the copy is ahead of the change log; waiting for the master to publish the rest", "position", db.at, "end", tail.Sequence)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(aheadPoll):
		}
	}
}

func otherChain(topics, ours string, offset int64) error {
	return fmt.Errorf("%w: the change log is of the chain with genesis %s (offset %d), this database's genesis is %s: check --cluster and --datadir",
		ErrUsage, topics, offset, ours)
}

package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
)

// journals are those that an import wrote, all of them: hard links keep what LevelDB deleted.
type journals struct {
	dir, links string // chaindata at rest, and the links
	from       uint64 // sequence behind the genesis block
	tape       *tape  // the same as frames
	bytes      int64  // of journal records
}

// importJournals runs a plain `geth import` and keeps its journals.
func (b *bench) importJournals(ctx context.Context) (_ *journals, err error) {
	datadir, err := b.fresh("journals")
	if err != nil {
		return nil, err
	}
	j := &journals{dir: harness.Chaindata(datadir), links: filepath.Join(datadir, "links")}
	state, err := chaindata.Inspect(j.dir)
	if err != nil {
		return nil, err
	}
	j.from = state.Sequence + 1
	follower, err := j.follow()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, follower.Close()) }()
	b.say("geth import, keeping its journals (load %.2f)", load())
	if _, err := b.timed(ctx, b.command("geth-import", b.geth, b.importArgs(datadir)...)); err != nil {
		return nil, err
	}
	follower.SourceStopped()
	w, err := newTapeWriter(filepath.Join(b.dir, "tape"))
	if err != nil {
		return nil, err
	}
	err = eachBatch(ctx, follower, func(batch chaindata.Batch) error {
		j.bytes += int64(len(batch.Data))
		for _, frame := range changelog.SplitBatch(1, batch.First, batch.Count, batch.Data, 0, time.Now()) {
			if err := w.add(changelog.Entry{Offset: int64(len(w.tape.entries)), Frame: frame, Time: frame.Time}); err != nil {
				return err
			}
		}
		return nil
	})
	j.tape, err = w.finish(err)
	return j, err
}

func (j *journals) follow() (*chaindata.Follower, error) {
	return chaindata.NewFollower(chaindata.FollowOptions{Dir: j.dir, SpoolDir: j.links, From: j.from})
}

// eachBatch goes to the end of the journals of a database that nobody writes to any more.
func eachBatch(ctx context.Context, follower *chaindata.Follower, do func(chaindata.Batch) error) error {
	for {
		batch, err := follower.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(batch); err != nil {
			return err
		}
	}
}

// read is the capture stage: from the journals to whole batches. Nothing is called published, so the links stay.
func (j *journals) read(ctx context.Context, do func(chaindata.Batch) error) error {
	follower, err := j.follow()
	if err != nil {
		return err
	}
	follower.SourceStopped()
	return errors.Join(eachBatch(ctx, follower, do), follower.Close())
}

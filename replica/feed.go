package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
)

// item is one event of the change log, decoded and looked through, so that the writer has little left to do.
type item struct {
	event  changelog.Event
	offset int64  // of the entry; the event's position stays before it while parts of a batch are collected
	change change // for batches
	err    error  // the feed's end
}

type feedOptions struct {
	at      changelog.Position
	genesis common.Hash
	frozen  uint64 // blocks in the local freezer
	metrics *metrics
}

// feed reads, verifies and decodes on a goroutine of its own. Behind an error nothing is delivered.
type feed struct {
	items  chan item
	cancel context.CancelFunc
	done   chan struct{}
	reader EntryReader
	opts   feedOptions
	frozen struct {
		sync.Mutex
		fn func() uint64
	}
}

// feedAhead is how many events are decoded ahead. Batches are mostly around 100 KB, so this bounds some 10 MB.
const feedAhead = 64

func startFeed(ctx context.Context, reader EntryReader, opts feedOptions) *feed {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{items: make(chan item, feedAhead), cancel: cancel, done: make(chan struct{}), reader: reader, opts: opts}
	f.frozen.fn = func() uint64 { return opts.frozen }
	go f.run(ctx)
	return f
}

func (f *feed) close() {
	f.cancel()
	<-f.done
	f.reader.Close()
}

// setFrozen tells how to ask for the number of blocks in the local freezer, once geth moves blocks there.
func (f *feed) setFrozen(fn func() uint64) {
	f.frozen.Lock()
	f.frozen.fn = fn
	f.frozen.Unlock()
}

func (f *feed) frozenBlocks() uint64 {
	f.frozen.Lock()
	defer f.frozen.Unlock()
	return f.frozen.fn()
}

func (f *feed) run(ctx context.Context) {
	defer close(f.done)
	sequencer := changelog.NewSequencer(f.opts.at)
	for {
		it := f.next(ctx, sequencer)
		select {
		case f.items <- it:
		case <-ctx.Done():
			return
		}
		if it.err != nil {
			return
		}
	}
}

func (f *feed) next(ctx context.Context, sequencer *changelog.Sequencer) item {
	for {
		entry, err := f.reader.Next(ctx)
		if err != nil {
			// The reader knows offsets only; the operator needs the whole position.
			if gone, ok := errors.AsType[*changelog.NotRetainedError](err); ok && gone.Position.Timeline == 0 {
				gone.Position = sequencer.Position()
			}
			return item{err: err}
		}
		event, err := sequencer.Next(entry)
		if err != nil {
			return item{err: err}
		}
		f.opts.metrics.read(&entry)
		it := item{event: event, offset: entry.Offset}
		switch event.Kind {
		case changelog.EventNone:
			if entry.Offset+1 < entry.HighWater {
				continue
			}
		case changelog.EventBatch:
			batch, err := chaindata.ParseBatch(event.Record)
			if err != nil {
				return item{err: fmt.Errorf("%w: offset %d: %w", changelog.ErrCorrupt, entry.Offset, err)}
			}
			it.change = scan(batch, f.frozenBlocks())
			it.event.Record = nil
			// A newer geth says so in its first batch, before any heartbeat does.
			if err := f.check("", it.change.databaseVersion, entry.Offset); err != nil {
				return item{err: err}
			}
		case changelog.EventHeartbeat:
			if err := f.check(event.Heartbeat.Genesis, event.Heartbeat.DatabaseVersion, entry.Offset); err != nil {
				return item{err: err}
			}
		case changelog.EventTimelineStart:
			if err := f.check(event.Start.Genesis, event.Start.DatabaseVersion, entry.Offset); err != nil {
				return item{err: err}
			}
		}
		return it
	}
}

// check holds the master's chain against the database's.
func (f *feed) check(genesis string, version int, offset int64) error {
	if genesis != "" && !strings.EqualFold(genesis, f.opts.genesis.Hex()) {
		return otherChain(genesis, f.opts.genesis.Hex(), offset)
	}
	if uint64(max(version, 0)) > maxDatabaseVersion {
		return fmt.Errorf("%w: the master's database is of version %d, this release reads up to %d (geth %s): upgrade this replica",
			ErrUsage, version, maxDatabaseVersion, gethVersion)
	}
	return nil
}

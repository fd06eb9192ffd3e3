package replica

import (
	"errors"
	"fmt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// BulkOptions are goleveldb's options while catching up, when nothing is read: large memtables, so that keys are written
// fewer times (two of them are most of what catching up takes of memory), and no pause for compaction, which another core does meanwhile. Tables, filters and comparer are what geth
// opens the database with.
func BulkOptions() *opt.Options {
	return &opt.Options{
		Filter:                 filter.NewBloomFilter(10),
		DisableSeeksCompaction: true,
		OpenFilesCacheCapacity: 1024,
		BlockCacheCapacity:     16 * opt.MiB,
		WriteBuffer:            32 * opt.MiB,
		CompactionTableSize:    8 * opt.MiB,
		CompactionTotalSize:    256 * opt.MiB,
		CompactionL0Trigger:    4,
		WriteL0SlowdownTrigger: 32,
		WriteL0PauseTrigger:    48,
		NoWriteMerge:           true,
	}
}

// bulkGroup is how many bytes of operations go into one write, at least. Sorting pays with size; beyond this there is
// little left to gain.
const bulkGroup = 4 << 20

// Bulk applies batches to a bare LevelDB. It is not safe for concurrent use. Batches and the position behind them are
// written together (I2).
type Bulk struct {
	db *leveldb.DB
	g  group
}

// OpenBulk opens the chaindata directory for bulk writing.
func OpenBulk(dir string) (*Bulk, error) {
	db, err := leveldb.OpenFile(dir, BulkOptions())
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", dir, err)
	}
	return &Bulk{db: db}, nil
}

// Apply adds a batch and the position behind it, and writes when enough has come together.
func (b *Bulk) Apply(batch chaindata.Batch, at changelog.Position) error {
	c := scan(batch, 0)
	b.g.add(&c, at)
	if len(b.g.ops) < bulkGroup {
		return nil
	}
	return b.Flush()
}

// Flush writes what has been collected.
func (b *Bulk) Flush() error {
	if !b.g.any {
		return nil
	}
	batch, err := b.g.batch()
	if err != nil {
		return err
	}
	if err := b.write(batch); err != nil {
		return err
	}
	b.g.reset()
	return nil
}

func (b *Bulk) write(batch *leveldb.Batch) error {
	if err := b.db.Write(batch, nil); err != nil {
		return fmt.Errorf("write to the database: %w", err)
	}
	return nil
}

// Close flushes and closes the database.
func (b *Bulk) Close() error { return errors.Join(b.Flush(), b.db.Close()) }

// group collects the operations of successive batches into one.
type group struct {
	ops   []byte
	at    changelog.Position
	heads heads
	any   bool
	dirty bool // heads changed

	sorter sorter
	loaded leveldb.Batch
	head   common.Hash // LastBlock, if the group moves it
	number uint64      // its number, when the group's batch told
}

func (g *group) add(c *change, at changelog.Position) {
	g.ops = append(g.ops, c.ops()...)
	g.at, g.any = at, true
	if c.setsHeads() {
		g.heads.apply(c)
		g.dirty = true
		if c.headBlock != nil {
			g.head = *c.headBlock
			if c.canonical != nil {
				g.number = *c.canonical
			}
		}
	}
}

// batch ends the group with its position and returns it ready to be written.
func (g *group) batch() (*leveldb.Batch, error) {
	g.ops = appendPut(g.ops, changelog.PositionKey, g.at.Marshal())
	if g.dirty {
		g.ops = appendPut(g.ops, headsKey, g.heads.marshal())
	}
	sorted, _ := g.sorter.sort(g.ops)
	if err := g.loaded.Load(sorted); err != nil {
		return nil, fmt.Errorf("batch up to %s: %w", g.at, err)
	}
	return &g.loaded, nil
}

func (g *group) reset() {
	g.ops, g.any, g.dirty = g.ops[:0], false, false
	g.head, g.number = common.Hash{}, 0
}

// heads are the three head markers as the stream last set them.
type heads struct{ header, fast, block common.Hash }

func (h *heads) apply(c *change) {
	if c.headHeader != nil {
		h.header = *c.headHeader
	}
	if c.headFast != nil {
		h.fast = *c.headFast
	}
	if c.headBlock != nil {
		h.block = *c.headBlock
	}
}

func (h *heads) marshal() []byte {
	b := append([]byte{}, h.header[:]...)
	b = append(b, h.fast[:]...)
	return append(b, h.block[:]...)
}

func unmarshalHeads(b []byte) (heads, bool) {
	if len(b) != 96 {
		return heads{}, false
	}
	return heads{common.BytesToHash(b[:32]), common.BytesToHash(b[32:64]), common.BytesToHash(b[64:])}, true
}

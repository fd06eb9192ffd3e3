package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/ethereum/go-ethereum/common"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// opened is a database at rest, and where it stands.
type opened struct {
	db      *leveldb.DB
	at      changelog.Position
	heads   heads
	genesis common.Hash
	fresh   bool // the position is not in the database yet
	// repaired says that the last geth stopped in the middle of moving the head: geth has to set it again.
	repaired bool
}

// openDatabase opens the copied database and finds its position. Errors say in one line what to do.
func openDatabase(opts *Options) (*opened, error) {
	dir := opts.chaindata()
	// Before goleveldb opens it, which takes a sequence: a copy without a position stands at its own sequence.
	state, err := chaindata.Inspect(dir)
	if errors.Is(err, chaindata.ErrNoDatabase) {
		return nil, fmt.Errorf("%w: --datadir %s holds no database: copy one there, or name a --snapshot (%w)", ErrUsage, opts.Datadir, err)
	}
	if err != nil {
		return nil, err
	}
	if err := chaindata.CheckSource(dir); err != nil {
		return nil, err
	}
	db, err := leveldb.OpenFile(dir, BulkOptions())
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, storage.ErrLocked) {
		return nil, fmt.Errorf("%w: %s: %w", ErrUsage, dir, chaindata.ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open the database %s: %w", dir, err)
	}
	o := &opened{db: db}
	if err := o.load(opts, state.Sequence); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return o, nil
}

func (o *opened) load(opts *Options, sequence uint64) error {
	genesis, err := o.get(canonicalKey(0))
	if err != nil || len(genesis) != 32 {
		return fmt.Errorf("%w: the database in %s holds no chain: it needs a copy of the master's", ErrUsage, opts.Datadir)
	}
	o.genesis = common.BytesToHash(genesis)
	if err := o.checkVersion(); err != nil {
		return err
	}
	stored, err := o.get(changelog.PositionKey)
	if err != nil {
		return fmt.Errorf("read the position: %w", err)
	}
	marker, err := chaindata.ReadMarker(opts.chaindata())
	hasMarker := err == nil
	if err != nil && !errors.Is(err, chaindata.ErrNoMarker) {
		return err
	}
	if hasMarker && marker.Role == chaindata.RoleSource {
		return fmt.Errorf("%w: %s is the database of cluster %s's master (timeline %d): a replica needs a copy of it", ErrUsage,
			opts.Datadir, marker.Cluster, marker.Timeline)
	}
	if stored != nil {
		if o.at, err = changelog.UnmarshalPosition(stored); err != nil {
			return fmt.Errorf("position in the database %s: %w", opts.Datadir, err)
		}
	}
	// A promoted replica keeps its last position from before; a copy of it is further, at its own sequence.
	if stored == nil || hasMarker && marker.Timeline > o.at.Timeline {
		if !hasMarker {
			return fmt.Errorf("%w: the database in %s has neither a position nor a marker of the master it was copied from: "+
				"copy it from a running master or restore a snapshot", ErrUsage, opts.Datadir)
		}
		o.at = changelog.Position{Cluster: marker.Cluster, Timeline: marker.Timeline, Sequence: sequence, Offset: -1}
		if marker.Sequence != 0 {
			o.at.Sequence = marker.Sequence
		}
		stored = nil
	}
	if o.at.Cluster != opts.Cluster {
		return fmt.Errorf("%w: the database in %s is of cluster %q, --cluster says %q", changelog.ErrWrongCluster,
			opts.Datadir, o.at.Cluster, opts.Cluster)
	}
	o.fresh = stored == nil
	return nil
}

// loadHeads reads the head markers, and puts them back where the stream left them if geth died while it moved them.
// The first write to the database: what speaks against it has to be known before.
func (o *opened) loadHeads() error {
	var now heads
	for key, hash := range map[string]*common.Hash{
		string(keyLastHeader): &now.header, string(keyLastFast): &now.fast, string(keyLastBlock): &now.block,
	} {
		value, err := o.get([]byte(key))
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		*hash = common.BytesToHash(value)
	}
	stored, err := o.get(headsKey)
	if err != nil {
		return fmt.Errorf("read the heads: %w", err)
	}
	want, ok := unmarshalHeads(stored)
	if o.fresh || !ok {
		want = now
	}
	o.heads, o.repaired = want, want != now
	batch := new(leveldb.Batch)
	if o.fresh || !ok {
		batch.Put(changelog.PositionKey, o.at.Marshal())
		batch.Put(headsKey, want.marshal())
	}
	if o.fresh {
		batch.Delete(uncleanShutdownKey) // the master's: its process runs, which looks like a crash here
	}
	if o.repaired {
		batch.Put(keyLastHeader, want.header[:])
		batch.Put(keyLastFast, want.fast[:])
		batch.Put(keyLastBlock, want.block[:])
	}
	if err := o.db.Write(batch, nil); err != nil {
		return fmt.Errorf("write the position: %w", err)
	}
	return nil
}

func (o *opened) checkVersion() error {
	value, err := o.get(keyDBVersion)
	if err != nil {
		return err
	}
	if v := databaseVersion(value); v > maxDatabaseVersion {
		return fmt.Errorf("%w: the database is of version %d, this release reads up to %d (geth %s): upgrade Drover",
			ErrUsage, v, maxDatabaseVersion, gethVersion)
	}
	return nil
}

// databaseVersion reads geth's record: RLP of a small integer, which is the byte itself.
func databaseVersion(value []byte) uint64 {
	if len(value) == 0 {
		return 0
	}
	return uint64(value[0])
}

// get returns nil for a key that is absent.
func (o *opened) get(key []byte) ([]byte, error) {
	value, err := o.db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	return value, err
}

// number returns a block's height, 0 when it is not known.
func (o *opened) number(hash common.Hash) uint64 {
	value, err := o.get(numberKey(hash))
	if err != nil || len(value) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

// frozenBlocks is the number of blocks in the local freezer, from the size of its index: 6 bytes for each block and one
// entry before them that tells how many were cut off at the front (core/rawdb/freezer_table.go).
func frozenBlocks(dir string) uint64 {
	path := filepath.Join(dir, "ancient", "chain", "hashes.ridx")
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	info, err := f.Stat()
	var first [6]byte
	if err != nil || info.Size() < 6 {
		return 0
	}
	if _, err := f.ReadAt(first[:], 0); err != nil {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(first[2:])) + uint64(info.Size()/6-1)
}

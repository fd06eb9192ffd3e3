package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"golang.org/x/sys/unix"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
)

// bigDB stands in for a chaindata directory of many gigabytes: geth's database with its genesis block, filled up with keys and
// values of random bytes, in tables of geth's size on LevelDB's usual levels. geth would need days for as much.
type bigDB struct {
	datadir string
	dir     string // chaindata
	random  *rand.ChaCha8
	written uint64 // entries
}

// valueSize is larger than most of geth's values: filling is to be limited by the disk. What a snapshot does depends on tables.
const valueSize = 4 << 10

func (b *bench) newBigDB(ctx context.Context, name string, bytes int64) (*bigDB, error) {
	datadir, err := b.fresh(name)
	if err != nil {
		return nil, err
	}
	d := &bigDB{datadir: datadir, dir: harness.Chaindata(datadir), random: rand.NewChaCha8([32]byte{1})}
	if err := d.fill(ctx, bytes, d.ascending); err != nil {
		return nil, err
	}
	return d, chaindata.WriteMarker(d.dir, chaindata.Marker{Cluster: clusterName, Timeline: 1, Role: chaindata.RoleCopy})
}

// options are geth's (ethdb/leveldb) with --cache 256, but for the write buffer: a table of level 0 is as large as that, and
// ascending ones then move down without being written again.
func (d *bigDB) options() *opt.Options {
	return &opt.Options{
		Filter: filter.NewBloomFilter(10), DisableSeeksCompaction: true, WriteBuffer: 2 << 20, BlockCacheCapacity: 8 << 20, OpenFilesCacheCapacity: 256,
		Compression: opt.NoCompression, // of noise
	}
}

// fill writes so many bytes. With random keys it returns when LevelDB has merged all that it wants to merge.
func (d *bigDB) fill(ctx context.Context, bytes int64, key func([]byte)) (err error) {
	db, err := leveldb.OpenFile(d.dir, d.options())
	if err != nil {
		return err
	}
	k, value := make([]byte, 32), make([]byte, valueSize)
	batch := new(leveldb.Batch)
	for left := bytes; left > 0 && err == nil && ctx.Err() == nil; {
		for batch.Reset(); batch.Len() < 64 && left > 0; left -= int64(len(k) + len(value)) {
			_, _ = d.random.Read(k) // never fails
			_, _ = d.random.Read(value)
			key(k)
			batch.Put(k, value)
			d.written++
		}
		err = db.Write(batch, nil)
	}
	if err == nil {
		err = settled(ctx, db)
	}
	if closed := db.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("fill %s: %w", d.dir, err)
	}
	return nil
}

// ascending puts a counter at the front: tables do not overlap. It begins with a zero byte, which no key of geth's does but
// one hash in 256.
func (d *bigDB) ascending(key []byte) { binary.BigEndian.PutUint64(key, d.written) }

// anywhere is a key among those that are there, as a hash would be.
func (d *bigDB) anywhere(key []byte) {
	binary.BigEndian.PutUint64(key, binary.BigEndian.Uint64(key)%d.written)
}

// settled waits until no table has been made for two seconds.
func settled(ctx context.Context, db *leveldb.DB) error {
	var stats leveldb.DBStats
	last, since := uint64(0), time.Now()
	for time.Since(since) < 2*time.Second {
		if err := db.Stats(&stats); err != nil {
			return err
		}
		if stats.IOWrite != last {
			last, since = stats.IOWrite, time.Now()
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is the bytes of all files below a directory.
func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

// cold writes out what is dirty and lets go of a directory's pages in the cache, so that whoever reads it next reads the disk.
func cold(dir string) error {
	quiet()
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

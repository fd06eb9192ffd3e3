package chaindata

import (
	"errors"
	"io"
	"math/rand"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// gethLike is a batch as geth's state commits make them: 100 KB of trie nodes.
func gethLike(rng *rand.Rand) *leveldb.Batch {
	b := leveldb.MakeBatch(120 << 10)
	value := make([]byte, 600)
	key := make([]byte, 32)
	for len(b.Dump()) < 100<<10 {
		rng.Read(key)
		b.Put(key, value[:100+rng.Intn(500)])
	}
	return b
}

// BenchmarkFollow reads a database's journals from the page cache: throughput, and allocations for each batch.
func BenchmarkFollow(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "chaindata")
	db, err := leveldb.OpenFile(dir, &opt.Options{WriteBuffer: 512 << 20, NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewSource(1))
	batch := gethLike(rng)
	var bytes int64
	for bytes < 256<<20 {
		if err := db.Write(batch, nil); err != nil {
			b.Fatal(err)
		}
		bytes += int64(len(batch.Dump()))
	}
	defer db.Close()
	b.SetBytes(bytes)
	b.ReportAllocs()
	b.ResetTimer()
	batches := 0
	for range b.N {
		f := newFollower(b, FollowOptions{Dir: dir, From: 1, SpoolDir: filepath.Join(b.TempDir(), "spool")})
		f.SourceStopped()
		for {
			got, ok, err := f.TryNext()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || !ok {
				b.Fatal(err)
			}
			f.Published(got.Last())
			batches++
		}
		f.Close()
	}
	b.ReportMetric(float64(batches)/float64(b.N), "batches/op")
}

// BenchmarkFollowLive follows a database with geth's smallest write buffer while it is written at full speed, and
// reports the CPU time that following costs, for each megabyte.
func BenchmarkFollowLive(b *testing.B) {
	var bytes int64
	for range b.N {
		dir := filepath.Join(b.TempDir(), "chaindata")
		f := newFollower(b, FollowOptions{Dir: dir, From: 1})
		db, err := leveldb.OpenFile(dir, &opt.Options{WriteBuffer: 4 << 20})
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			defer f.SourceStopped()
			rng := rand.New(rand.NewSource(1))
			for range 1000 {
				if err := db.Write(gethLike(rng), nil); err != nil {
					b.Error(err)
					return
				}
			}
			db.Close()
		}()
		ctx := deadline(b, time.Minute)
		for {
			got, err := f.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			bytes += int64(len(got.Data))
			f.Published(got.Last())
		}
		f.Close()
	}
	b.SetBytes(bytes / int64(b.N))
}

// BenchmarkFollowLatency is the time from a write's return to the batch's delivery.
func BenchmarkFollowLatency(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "chaindata")
	f := newFollower(b, FollowOptions{Dir: dir, From: 1})
	db, err := leveldb.OpenFile(dir, &opt.Options{WriteBuffer: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	ctx := deadline(b, time.Minute)
	var cpu time.Duration
	for i := range b.N {
		b.StopTimer()
		time.Sleep(time.Millisecond)
		before := cpuTime(b)
		b.StartTimer()
		if err := db.Put([]byte("key"), []byte("value"), nil); err != nil {
			b.Fatal(err)
		}
		if got, err := f.Next(ctx); err != nil || got.First != uint64(i+1) {
			b.Fatal(got.First, err)
		}
		cpu += cpuTime(b) - before
	}
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkArchiveCheck is what ArchiveCheck costs for each batch.
func BenchmarkArchiveCheck(b *testing.B) {
	batch, err := ParseBatch(record(1, gethLike(rand.New(rand.NewSource(1)))))
	if err != nil {
		b.Fatal(err)
	}
	var c ArchiveCheck
	b.SetBytes(int64(len(batch.Data)))
	b.ReportAllocs()
	for range b.N {
		if err := c.Observe(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

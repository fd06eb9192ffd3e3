package replica

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/syndtr/goleveldb/leveldb"
)

// BenchmarkApply replays an imported chain in three ways: what Run does, the same batches one by one into a bare
// goleveldb with the same options, and with geth's options. Set DROVER_TEST_CHAIN.
func BenchmarkApply(b *testing.B) {
	dir := chainDir(b)
	m := newMaster(b, dir+"/genesis.json")
	seed := b.TempDir()
	m.copyTo(seed)
	m.capture()
	began := time.Now()
	runGeth(b, append([]string{"import", "--datadir", m.datadir, "--gcmode", "archive", "--nocompaction"}, append(gethStorage, dir+"/chain.rlp")...)...)
	b.Logf("geth import: %s", time.Since(began))
	m.finish()
	var bytes int64
	for _, e := range m.log.entries {
		bytes += int64(e.Size)
	}
	fresh := func(b *testing.B) string {
		dir := b.TempDir()
		if err := os.CopyFS(filepath.Join(dir, "geth", "chaindata"), os.DirFS(filepath.Join(seed, "geth", "chaindata"))); err != nil {
			b.Fatal(err)
		}
		return dir
	}
	b.Run("replica", func(b *testing.B) {
		b.SetBytes(bytes)
		var used time.Duration
		for range b.N {
			b.StopTimer()
			datadir := fresh(b)
			r, err := New(Options{Cluster: testCluster, Log: m.log, Datadir: datadir, UntilSynced: true, Logger: testLogger(b)})
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			began := cpu()
			if err := r.Run(context.Background()); err != nil {
				b.Fatal(err)
			}
			used += cpu() - began
		}
		b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
	})
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(bytes)
		var used time.Duration
		for range b.N {
			b.StopTimer()
			datadir := fresh(b)
			b.StartTimer()
			began := cpu()
			db, err := leveldb.OpenFile(filepath.Join(datadir, "geth", "chaindata"), BulkOptions())
			if err != nil {
				b.Fatal(err)
			}
			writeAll(b, db, m.log)
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			used += cpu() - began
		}
		b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
	})
}

// cpu is the CPU time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func writeAll(b *testing.B, db *leveldb.DB, log *memLog) {
	batch := new(leveldb.Batch)
	sequencer := changelog.NewSequencer(changelog.Position{Cluster: testCluster, Timeline: 1, Sequence: log.entries[0].Frame.First - 1, Offset: -1})
	for _, e := range log.entries {
		event, err := sequencer.Next(e)
		if err != nil {
			b.Fatal(err)
		}
		if event.Kind != changelog.EventBatch {
			continue
		}
		if err := batch.Load(event.Record[batchHeader:]); err != nil {
			b.Fatal(err)
		}
		if err := db.Write(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
}

package snapshot

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
)

// BenchmarkSnapshot takes and restores a database of DROVER_BENCH_MB megabytes (default 64) of incompressible values, in each
// way that Create has, beside cp -r and a sync: all of Drover's files are synced, too.
func BenchmarkSnapshot(b *testing.B) {
	size, _ := strconv.Atoi(os.Getenv("DROVER_BENCH_MB"))
	if size == 0 {
		size = 64
	}
	base := b.TempDir()
	src := newSource(b, filepath.Join(base, "datadir"))
	src.write(10)
	src.db.Close()
	fill(b, src.dir(), size)
	for b.Loop() {
		round := time.Now()
		timed := func(what string, work func()) {
			start := time.Now()
			work()
			took := time.Since(start)
			b.ReportMetric(took.Seconds(), strings.ReplaceAll(what, " ", "-")+"-s")
			b.Logf("%s: %v, %.0f MB/s", what, took.Round(time.Millisecond), float64(size)/took.Seconds())
		}
		timed("cp -r and sync", func() {
			to := filepath.Join(base, fmt.Sprint("cp", round.UnixNano()))
			if out, err := exec.Command("sh", "-c", `cp -r "$0" "$1" && sync -f "$1"`, src.dir(), to).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		})
		for kind, tune := range storeKinds {
			store := openDir(b, filepath.Join(base, fmt.Sprint("store ", kind, round.UnixNano())))
			var m *Manifest
			timed("create/"+kind, func() { m = src.create(store, tune).Manifest })
			timed("again/"+kind, func() { src.create(store, tune) })
			timed("restore/"+kind, func() { mustRestore(b, store, filepath.Join(base, fmt.Sprint("r", kind, round.UnixNano())), m.ID) })
			timed("verify/"+kind, func() { mustVerify(b, store, m.ID) })
		}
	}
}

// fill adds so many megabytes as geth's tables have them: values that do not compress.
func fill(b *testing.B, dir string, megabytes int) {
	b.Helper()
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	key, value := make([]byte, 32), make([]byte, 400)
	for range megabytes << 20 / (len(key) + len(value)) / 100 {
		batch := new(leveldb.Batch)
		for range 100 {
			if _, err := rand.Read(key); err != nil {
				b.Fatal(err)
			}
			if _, err := rand.Read(value); err != nil {
				b.Fatal(err)
			}
			batch.Put(key, value)
		}
		if err := db.Write(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/replica"
)

func newApplyFigure() *figure {
	f := newFigure("apply", "a replica's catch-up ÷ the same batches one by one into a bare goleveldb with replica.BulkOptions()",
		&target{Series: "wall ratio", Limit: 1.25})
	f.note("replica: replica.Run with UntilSynced in this process: open the database, join, decode and check frames, put batches together, sort, write with position, close")
	f.note("bare: open the database, Load and Write each batch, close; the batches lie ready, joined and checked before")
	f.note("both read the same memory-mapped file and start from copies of the same database")
	return f
}

func (r *round) applyBoth(ctx context.Context) error {
	if r.tape == nil {
		var err error
		if r.tape, err = record(ctx, r.source.addr, filepath.Join(r.dir, "tape")); err != nil {
			return err
		}
	}
	f := r.apply
	f.Load = append(f.Load, load())
	applied, err := r.measureApply(ctx, "replica in process", func(datadir string) error {
		rep, err := replica.New(replica.Options{Cluster: clusterName, Log: r.tape, Datadir: datadir, UntilSynced: true})
		if err != nil {
			return err
		}
		return rep.Run(ctx)
	})
	if err != nil {
		return err
	}
	bare, err := r.measureApply(ctx, "bare goleveldb", func(datadir string) error {
		return writeBare(ctx, harness.Chaindata(datadir), r.tape.records)
	})
	if err != nil {
		return err
	}
	f.seconds("replica wall", applied.wall)
	f.seconds("replica CPU", applied.cpu)
	f.seconds("bare wall", bare.wall)
	f.seconds("bare CPU", bare.cpu)
	f.add("wall ratio", "", applied.wall.Seconds()/bare.wall.Seconds())
	f.add("CPU ratio", "", applied.cpu.Seconds()/bare.cpu.Seconds())
	return nil
}

// measureApply times work on a copy of the seed. CPU is this process's, which does nothing else meanwhile.
func (r *round) measureApply(ctx context.Context, name string, work func(datadir string) error) (usage, error) {
	datadir, err := r.fresh("apply")
	if err != nil {
		return usage{}, err
	}
	debug.FreeOSMemory() // also collects: no run pays for the garbage of the one before
	quiet()
	r.say("run %d of %d: %s (load %.2f)", r.run+1, r.runs, name, load())
	began, cpuBegan := time.Now(), selfCPU()
	if err := work(datadir); err != nil {
		return usage{}, fmt.Errorf("%s: %w", name, err)
	}
	u := usage{wall: time.Since(began), cpu: selfCPU() - cpuBegan}
	if ctx.Err() != nil {
		return u, ctx.Err() // a replica that is told to end does so without an error
	}
	return u, r.drop(datadir)
}

// writeBare writes LevelDB records, header included.
func writeBare(ctx context.Context, dir string, records [][]byte) error {
	db, err := leveldb.OpenFile(dir, replica.BulkOptions())
	if err != nil {
		return err
	}
	defer db.Close()
	const header = 12 // sequence and count, which Load does not take
	batch := new(leveldb.Batch)
	for _, record := range records {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := batch.Load(record[header:]); err != nil {
			return err
		}
		if err := db.Write(batch, nil); err != nil {
			return err
		}
	}
	return db.Close()
}

// selfCPU is the user and system time of this process.
func selfCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

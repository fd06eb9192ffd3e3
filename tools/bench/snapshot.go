package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/drover-io/drover/snapshot"
)

func newSnapshotFigure(gigabytes float64) *figure {
	const part = 0.8
	f := newFigure("snapshot", fmt.Sprintf("`drover snapshot` of a database of %g GB, each command from process start to exit code 0, beside `cp -r` and a sync", gigabytes),
		&target{Series: "create by hard links", Limit: 2},
		&target{Series: "create ÷ cp -r, as rates", Limit: part, AtLeast: true},
		&target{Series: "restore ÷ cp -r, as rates", Limit: part, AtLeast: true},
	)
	f.note("the database is geth's with its genesis block, filled with random keys and values of %d bytes by goleveldb: tables of geth's size on LevelDB's levels", valueSize)
	f.note("all on one disk; before each command its source is not in the page cache; create and restore without hard links sync every file and compare checksums, and `cp -r` is followed by sync -f")
	f.note("restore by hard links and verify read every byte; verify opens no geth")
	f.note("growth: after 5 %% more were written, appended behind the old keys (as blocks and the freezer are: nothing old is written again), then under random keys all over the old ones (the most that LevelDB can have to merge)")
	return f
}

// snapshots takes, verifies and restores a large database in each way.
func (b *bench) snapshots(ctx context.Context) ([]*figure, error) {
	if !b.wants("snapshot") {
		return nil, nil
	}
	f := newSnapshotFigure(b.gigabytes)
	size := int64(b.gigabytes * 1e9)
	b.say("filling a database with %g GB", b.gigabytes)
	db, err := b.newBigDB(ctx, "big", size)
	if err != nil {
		return nil, err
	}
	for run := range b.runs {
		f.Load = append(f.Load, load())
		b.say("run %d of %d: snapshots of %g GB (load %.2f)", run+1, b.runs, b.gigabytes, load())
		r := &snapshotRun{bench: b, f: f, db: db, last: run == b.runs-1}
		if err := r.measure(ctx, run); err != nil {
			return []*figure{f}, fmt.Errorf("snapshot, run %d: %w", run+1, err)
		}
	}
	return []*figure{f}, b.drop(db.datadir)
}

// snapshotRun is one round of commands. What it makes it removes as soon as it can: there are never more than four copies.
type snapshotRun struct {
	*bench
	f    *figure
	db   *bigDB
	last bool
	size float64 // MB
}

func (r *snapshotRun) measure(ctx context.Context, run int) error {
	bytes, err := sizeOf(r.db.dir)
	if err != nil {
		return err
	}
	r.size = float64(bytes) / 1e6
	r.f.add("database", "MB", r.size)
	links, copies := filepath.Join(r.dir, fmt.Sprint("links-", run)), filepath.Join(r.dir, fmt.Sprint("copies-", run))
	if err := r.linked(ctx, links); err != nil {
		return err
	}
	if err := r.drop(links); err != nil {
		return err
	}
	if err := r.copied(ctx, copies); err != nil {
		return err
	}
	if r.last {
		if err := r.grown(ctx, copies); err != nil {
			return err
		}
	}
	return r.drop(copies)
}

// linked is a store on the source's file system, as a directory store is by default.
func (r *snapshotRun) linked(ctx context.Context, store string) error {
	if err := cold(r.db.dir); err != nil {
		return err
	}
	took, _, err := r.create(ctx, store, r.db.datadir)
	if err != nil {
		return err
	}
	r.f.seconds("create by hard links", took)
	if took, err = r.drive(ctx, nil, "verify", "--store", store); err != nil {
		return err
	}
	r.f.seconds("verify, hard links", took)
	to := filepath.Join(r.dir, "restored-links")
	if err := cold(store); err != nil {
		return err
	}
	if took, err = r.drive(ctx, nil, "restore", "--store", store, "--datadir", to); err != nil {
		return err
	}
	r.f.seconds("restore by hard links", took)
	return r.drop(to)
}

// copied is a store that shares nothing with the source, beside cp.
func (r *snapshotRun) copied(ctx context.Context, store string) error {
	cp, err := r.cp(ctx, r.db.dir)
	if err != nil {
		return err
	}
	if err := cold(r.db.dir); err != nil {
		return err
	}
	took, _, err := r.create(ctx, store, r.db.datadir, "--no-hard-links")
	if err != nil {
		return err
	}
	r.beside("create", took, cp)
	if took, _, err = r.create(ctx, store, r.db.datadir, "--no-hard-links"); err != nil {
		return err
	}
	r.f.seconds("create again, nothing new", took)
	if took, err = r.drive(ctx, nil, "verify", "--store", store); err != nil {
		return err
	}
	r.f.seconds("verify", took)
	// Once more: the disk may be slower by now than it was.
	if cp, err = r.cp(ctx, r.db.dir); err != nil {
		return err
	}
	to := filepath.Join(r.dir, "restored")
	if err := cold(store); err != nil {
		return err
	}
	if took, err = r.drive(ctx, nil, "restore", "--store", store, "--datadir", to, "--no-hard-links"); err != nil {
		return err
	}
	r.beside("restore", took, cp)
	return r.drop(to)
}

func (r *snapshotRun) beside(what string, took, cp time.Duration) {
	r.f.seconds("cp -r beside "+what, cp)
	r.f.seconds(what, took)
	r.f.add(what+" rate", "MB/s", r.size/took.Seconds())
	r.f.add(what+" ÷ cp -r, as rates", "", cp.Seconds()/took.Seconds())
}

func (r *snapshotRun) cp(ctx context.Context, from string) (time.Duration, error) {
	to := filepath.Join(r.dir, "cp")
	if err := cold(from); err != nil {
		return 0, err
	}
	began := time.Now()
	out, err := exec.CommandContext(ctx, "sh", "-c", `cp -r "$0" "$1" && sync -f "$1"`, from, to).CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("cp -r: %w: %s", err, out)
	}
	return took, os.RemoveAll(to)
}

// grown writes 5 % more and takes another snapshot, twice.
func (r *snapshotRun) grown(ctx context.Context, store string) error {
	for _, growth := range []struct {
		name string
		key  func([]byte)
	}{{"appended", r.db.ascending}, {"merged", r.db.anywhere}} {
		if err := r.db.fill(ctx, int64(r.size*1e6/20), growth.key); err != nil {
			return err
		}
		took, res, err := r.create(ctx, store, r.db.datadir, "--no-hard-links")
		if err != nil {
			return err
		}
		r.f.seconds("create after "+growth.name+" growth", took)
		r.f.add("moved ÷ bytes after "+growth.name+" growth", "", float64(res.Moved)/float64(res.Manifest.Files.Bytes))
	}
	return nil
}

func (b *bench) create(ctx context.Context, store, datadir string, flags ...string) (time.Duration, snapshot.CreateResult, error) {
	var res snapshot.CreateResult
	took, err := b.drive(ctx, &res, append([]string{"create", "--json", "--store", store, "--datadir", datadir}, flags...)...)
	if err == nil && res.Manifest == nil {
		err = errors.New("drover snapshot create --json printed no manifest")
	}
	return took, res, err
}

// drive runs a `drover snapshot` command and reads its JSON into v, when that is not nil.
func (b *bench) drive(ctx context.Context, v any, args ...string) (took time.Duration, err error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, b.drover, append([]string{"snapshot", args[0], "--cluster", clusterName}, args[1:]...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	began := time.Now()
	err = cmd.Run()
	took = time.Since(began)
	if err != nil {
		return took, fmt.Errorf("drover snapshot %s: %w: %s", args[0], err, bytes.TrimSpace(said.Bytes()))
	}
	if v != nil {
		if err := json.Unmarshal(out.Bytes(), v); err != nil {
			return took, fmt.Errorf("drover snapshot %s: %w: %s", args[0], err, out.Bytes())
		}
	}
	return took, nil
}

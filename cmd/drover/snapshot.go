package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/snapshotview"
	"github.com/drover-io/drover/replica"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:  "snapshot",
		Usage: "take, list, verify, restore, prune and schedule snapshots",
		Subcommands: []*cli.Command{
			snapshotCreateCommand(), snapshotListCommand(), snapshotVerifyCommand(), snapshotRestoreCommand(), snapshotPruneCommand(),
			snapshotScheduleCommand(),
		},
	}
}

// snapshotFlags are those of every snapshot command. Brokers are optional where a store alone tells enough.
func snapshotFlags(more ...cli.Flag) []cli.Flag {
	flags := append(commonFlags(), kafkaFlags()...)
	flags = append(append(flags, storeFlags()...), ebsFlags()...)
	return append(flags, more...)
}

// ignoreSpaceFlag is for file systems that compress, or share what is the same.
func ignoreSpaceFlag() cli.Flag {
	return boolFlag("ignore-free-space", "begin although the files do not seem to fit on the disk")
}

func snapshotCreateCommand() *cli.Command {
	return &cli.Command{
		Name:  "create",
		Usage: "copy a master's or replica's database, running or not, into a store",
		Description: "Needs no stop and takes no lock. On the store's own file system tables become hard links. To another store only\n" +
			"what it does not have yet is sent, and a run that was ended half-way is gone on with. With --kafka.brokers the\n" +
			"Kafka offset of a master's database is looked up, too. The snapshot counts as usable once it was verified.",
		Flags: snapshotFlags(
			stringFlag("datadir", "", "geth datadir, of a master, a replica or a copy"),
			stringFlag("datadir.ancient", "", "directory of the freezer, where geth's flag of that name moved it"),
			stringFlag("compression", "", "zstd or none (default: none for a directory, zstd for other stores)"),
			intFlag("parallel", 4, "pieces of up to 64 MiB that are sent at once"),
			boolFlag("no-hard-links", "copy tables even where a hard link would do, so that the snapshot survives a bad disk"),
			stringFlag("node", "", "name of this node in the snapshot (default: the host's)"),
			boolFlag("json", "the snapshot's manifest and what was moved, instead of a line"),
		),
		Action: runSnapshotCreate,
	}
}

func runSnapshotCreate(c *cli.Context) error {
	if isEBS(c.String("store")) {
		return createEBS(c)
	}
	store, logger, err := openSnapshots(c, "datadir")
	if err != nil {
		return err
	}
	opts := snapshot.CreateOptions{
		Cluster: c.String("cluster"), Store: store, Datadir: c.String("datadir"), Ancient: c.String("datadir.ancient"),
		Node: c.String("node"), DroverVersion: version, Compression: snapshot.Compression(c.String("compression")),
		Parallel: c.Int("parallel"), NoHardLinks: c.Bool("no-hard-links"), Logger: logger,
	}
	if c.String("kafka.brokers") != "" {
		log, err := openLog(c, "drover-snapshot")
		if err != nil {
			return err
		}
		defer log.Close()
		opts.Topic = log
	}
	var res snapshot.CreateResult
	err = withBar(func(progress func(snapshot.Progress)) error {
		opts.Progress = progress
		res, err = snapshot.Create(c.Context, opts)
		return err
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return snapshotview.JSON(os.Stdout, res)
	}
	return snapshotview.Created(os.Stdout, res)
}

func snapshotListCommand() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "snapshots in a store, the newest first",
		Description: "With --kafka.brokers HEADROOM is the time until Kafka drops what a replica started from the snapshot reads first.",
		Flags:       snapshotFlags(boolFlag("json", "an array instead of the table, the oldest first")),
		Action: func(c *cli.Context) error {
			if isEBS(c.String("store")) {
				return listEBS(c)
			}
			store, _, err := openSnapshots(c)
			if err != nil {
				return err
			}
			list, err := snapshot.List(c.Context, snapshot.ListOptions{Cluster: c.String("cluster"), Store: store, Sizes: true})
			if err != nil {
				return err
			}
			if c.String("kafka.brokers") == "" {
				return showList(c, list, nil)
			}
			log, err := openLog(c, "drover-snapshot")
			if err != nil {
				return err
			}
			defer log.Close()
			return showList(c, list, log)
		},
	}
}

// showList writes snapshots with their headroom, where the change log is known.
func showList(c *cli.Context, list []*snapshot.Snapshot, log *changelog.Log) error {
	var headrooms snapshotview.Headrooms
	if log != nil {
		var err error
		if headrooms, err = measureHeadrooms(c.Context, log, list); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return snapshotview.ListJSON(os.Stdout, list, headrooms)
	}
	return snapshotview.List(os.Stdout, list, headrooms, time.Now())
}

// measureHeadrooms asks the change log how long each snapshot can still be started from.
func measureHeadrooms(ctx context.Context, log *changelog.Log, list []*snapshot.Snapshot) (snapshotview.Headrooms, error) {
	headrooms := make(snapshotview.Headrooms)
	for _, s := range list {
		if s.Broken != nil {
			continue
		}
		point := schedule.PointOf(s)
		point.Usable = true // how long it could be, if it is not yet
		m, err := schedule.Measure(ctx, log, []schedule.Point{point}, time.Now)
		if err != nil {
			return nil, err
		}
		headrooms[s.ID] = m.Headroom
	}
	return headrooms, nil
}

func snapshotVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "prove that a snapshot can be started from, and mark it usable",
		Description: "Compares every byte with its checksum, checks every block of every table, walks the whole state of the head from its\n" +
			"root, and with --kafka.brokers replays the topic on the copy up to its end.",
		Flags: snapshotFlags(
			stringFlag("id", "", "which snapshot (default: the newest, verified or not)"),
			stringFlag("work-dir", "", "directory for a throw-away copy of the database (default: beside a directory store)"),
			float64Flag("sample", 1, "the part of the state to walk, from 0 to 1, where all of it takes too long"),
			intFlag("parallel", 4, "files at once"),
			ignoreSpaceFlag(),
			boolFlag("json", "what was verified, instead of a line"),
		),
		Action: runSnapshotVerify,
	}
}

func runSnapshotVerify(c *cli.Context) error {
	if isEBS(c.String("store")) {
		return verifyEBS(c)
	}
	store, logger, err := openSnapshots(c)
	if err != nil {
		return err
	}
	opts := snapshot.VerifyOptions{
		Cluster: c.String("cluster"), Store: store, Select: snapshot.Select{ID: c.String("id"), Unverified: true}, WorkDir: c.String("work-dir"),
		SampleFraction: c.Float64("sample"), Parallel: c.Int("parallel"), IgnoreFreeSpace: c.Bool("ignore-free-space"),
		DroverVersion: version, Logger: logger,
	}
	if c.String("kafka.brokers") != "" {
		log, err := openLog(c, "drover-snapshot")
		if err != nil {
			return err
		}
		defer log.Close()
		opts.Replay = func(ctx context.Context, datadir string) error {
			return replay(ctx, c.String("cluster"), log, datadir, logger)
		}
	}
	var verified *snapshot.Snapshot
	err = withBar(func(progress func(snapshot.Progress)) error {
		opts.Progress = progress
		verified, err = snapshot.Verify(c.Context, opts)
		return err
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return snapshotview.JSON(os.Stdout, verified)
	}
	return snapshotview.Verified(os.Stdout, verified)
}

func snapshotRestoreCommand() *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "bring a snapshot into an empty datadir",
		Description: "Each object is verified as it comes. Ended half-way, it is gone on with when it is started again. `drover replica\n" +
			"--snapshot STORE` does this by itself.",
		Flags: snapshotFlags(
			stringFlag("datadir", "", "geth datadir to be filled; it has to be empty"),
			stringFlag("id", "", "which snapshot (default: the newest usable one)"),
			&cli.TimestampFlag{Name: "before", Layout: time.RFC3339, Usage: "the newest taken at or before this time, as 2026-11-21T13:05:00Z", EnvVars: []string{envName("before")}},
			uint64Flag("block", 0, "the newest whose head is at or below this block"),
			boolFlag("unverified", "also one that was not verified"),
			intFlag("parallel", 8, "files at once"),
			boolFlag("no-hard-links", "copy tables even where a hard link would do"),
			ignoreSpaceFlag(),
			boolFlag("json", "what was restored, instead of a line"),
		),
		Action: runSnapshotRestore,
	}
}

func runSnapshotRestore(c *cli.Context) error {
	which := snapshot.Select{ID: c.String("id"), Block: given[uint64](c, "block"), Unverified: c.Bool("unverified")}
	if before := c.Timestamp("before"); before != nil {
		which.Before = *before
	}
	if isEBS(c.String("store")) {
		return restoreEBS(c, which)
	}
	store, logger, err := openSnapshots(c, "datadir")
	if err != nil {
		return err
	}
	opts := snapshot.RestoreOptions{
		Cluster: c.String("cluster"), Store: store, Datadir: c.String("datadir"), Parallel: c.Int("parallel"), Select: which,
		NoHardLinks: c.Bool("no-hard-links"), IgnoreFreeSpace: c.Bool("ignore-free-space"), Logger: logger,
	}
	var res snapshot.RestoreResult
	err = withBar(func(progress func(snapshot.Progress)) error {
		opts.Progress = progress
		res, err = snapshot.Restore(c.Context, opts)
		return err
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return snapshotview.JSON(os.Stdout, res)
	}
	return snapshotview.Restored(os.Stdout, res)
}

func snapshotPruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove snapshots that nobody needs",
		Description: "Shows what would go; --confirm removes it. Never the last usable snapshot, never the newest that the change log\n" +
			"continues, and nothing at all while headroom is short.",
		Flags: snapshotFlags(
			append(keepFlags(),
				boolFlag("confirm", "remove; without it, it is only told what would be"),
				boolFlag("json", "the decisions, instead of the table"),
			)...,
		),
		Action: runSnapshotPrune,
	}
}

// keepFlags say which snapshots stay.
func keepFlags() []cli.Flag {
	return []cli.Flag{
		intFlag("keep", 3, "how many of the newest usable snapshots stay"),
		intFlag("keep-daily", 0, "keep the newest of this many days (UTC)"),
		intFlag("keep-weekly", 0, "keep the newest of this many weeks"),
		intFlag("keep-monthly", 0, "keep the newest of this many months"),
		int64Flag("margin", 0, "frames that the newest usable snapshot has to be above the topic's first one"),
		boolFlag("drop-broken", "also remove those whose manifest or file list is damaged"),
		durationFlag("orphan-age", 24*time.Hour, "age at which objects that no snapshot needs go"),
	}
}

func runSnapshotPrune(c *cli.Context) error {
	if isEBS(c.String("store")) {
		return pruneEBS(c)
	}
	store, logger, err := openSnapshots(c, "kafka.brokers")
	if err != nil {
		return err
	}
	first, err := firstRetained(c)
	if err != nil {
		return err
	}
	res, err := snapshot.Prune(c.Context, snapshot.PruneOptions{
		Cluster: c.String("cluster"), Store: store, Keep: c.Int("keep"), Daily: c.Int("keep-daily"), Weekly: c.Int("keep-weekly"),
		Monthly: c.Int("keep-monthly"), FirstRetained: first, Margin: c.Int64("margin"), Confirm: c.Bool("confirm"),
		DropBroken: c.Bool("drop-broken"), OrphanAge: c.Duration("orphan-age"), Logger: logger,
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return snapshotview.JSON(os.Stdout, res)
	}
	return snapshotview.Prune(os.Stdout, res)
}

// openSnapshots checks what every snapshot command needs, and opens the store.
func openSnapshots(c *cli.Context, also ...string) (snapshot.Store, *slog.Logger, error) {
	if err := required(c, append([]string{"cluster", "store"}, also...)...); err != nil {
		return nil, nil, err
	}
	logger, err := newLogger(c)
	if err != nil {
		return nil, nil, err
	}
	store, err := openStore(c, c.String("store"), logger)
	return store, logger, err
}

// firstRetained is the first offset that the topic still has.
func firstRetained(c *cli.Context) (int64, error) {
	log, err := openLog(c, "drover-snapshot")
	if err != nil {
		return 0, err
	}
	defer log.Close()
	first, _, err := log.Bounds(c.Context)
	return first, err
}

// replay applies the topic to a throw-away copy, up to the topic's end.
func replay(ctx context.Context, cluster string, log *changelog.Log, datadir string, logger *slog.Logger) error {
	r, err := replica.New(replica.Options{Cluster: cluster, Log: replica.FromLog(log), Datadir: datadir, UntilSynced: true, Logger: logger})
	if err != nil {
		return err
	}
	return errors.Join(r.Run(ctx), ctx.Err()) // a replica that is told to stop does so without an error
}

// withBar shows progress on standard error.
func withBar(work func(func(snapshot.Progress)) error) error {
	bar := snapshotview.NewBar(os.Stderr)
	defer bar.End()
	return work(bar.Show)
}

// restoreInto returns what a replica with an empty datadir does first.
func restoreInto(c *cli.Context, ref string, logger *slog.Logger) func(context.Context, func(string)) error {
	return func(ctx context.Context, tell func(string)) error {
		name, id := snapshot.ParseRef(ref)
		store, err := openStore(c, name, logger)
		if err != nil {
			return err
		}
		return restore(ctx, c.String("cluster"), store, snapshot.Select{ID: id}, c.String("datadir"), tell, logger)
	}
}

// restore fills a datadir from a snapshot, unless it has its database. tell is told how far it has come; it may be nil.
func restore(ctx context.Context, cluster string, store snapshot.Store, which snapshot.Select, datadir string, tell func(string), logger *slog.Logger) error {
	if needed, err := snapshot.NeedsRestore(datadir); err != nil || !needed {
		return err
	}
	var last time.Time
	res, err := snapshot.Restore(ctx, snapshot.RestoreOptions{
		Cluster: cluster, Store: store, Select: which, Datadir: datadir, Logger: logger,
		Progress: func(p snapshot.Progress) {
			if tell != nil {
				tell(snapshotview.Describe(p))
			}
			if time.Since(last) > 10*time.Second {
				last = time.Now()
				logger.Info("restoring a snapshot", "progress", snapshotview.Describe(p))
			}
		},
	})
	if err != nil {
		return err
	}
	logger.Info("restored a snapshot", "id", res.Snapshot.ID, "block", res.Snapshot.Head.Number, "took", res.Elapsed.Round(time.Millisecond))
	return nil
}

// nameSnapshot adds the newest usable snapshot to the error of a replica that was away for too long.
func nameSnapshot(c *cli.Context, ref string, logger *slog.Logger, err error) error {
	if ref == "" || !errors.Is(err, changelog.ErrNotRetained) {
		return err
	}
	name, _ := snapshot.ParseRef(ref)
	// The replica's own context may have ended with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), 30*time.Second)
	defer cancel()
	store, failed := openStore(c, name, logger)
	var newest *snapshot.Snapshot
	if failed == nil {
		newest, failed = snapshot.Find(ctx, store, c.String("cluster"), snapshot.Select{})
	}
	if failed != nil {
		return fmt.Errorf("%w; the newest usable snapshot in %s: %w", err, name, failed)
	}
	return fmt.Errorf("%w; the newest usable snapshot is %s#%s (block %d, offset %d): move the datadir away and start again with --snapshot",
		err, name, newest.ID, newest.Head.Number, newest.Offset)
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/master"
	"github.com/drover-io/drover/replica"
)

func masterCommand() *cli.Command {
	flags := append(commonFlags(), kafkaFlags()...)
	return &cli.Command{
		Name:      "master",
		Usage:     "run a stock geth and publish every write of its database",
		ArgsUsage: "-- geth ARGS…",
		Description: "Publishes what geth's journals still hold, starts geth, and follows it until it ends; geth ends with Drover.\n" +
			"With --attach somebody else runs geth. A replica's datadir becomes the source with --takeover (docs/promotion.md). geth needs --db.engine leveldb --state.scheme hash --gcmode archive.",
		Flags: append(flags,
			adminFlag(),
			stringFlag("datadir", "", "geth's --datadir"),
			stringFlag("chaindata", "", "directory of geth's database (default: DATADIR/geth/chaindata)"),
			boolFlag("attach", "follow a geth that somebody else runs"),
			stringFlag("ipcpath", "", "geth's IPC socket (default: what geth's arguments say, else DATADIR/geth.ipc)"),
			durationFlag("heartbeat.interval", 2*time.Second, "time between heartbeats"),
			stringFlag("spool.dir", "", "where unpublished journals are kept by hard links, on the file system of the database (default: beside it)"),
			int64Flag("spool.limit", 64<<30, "bytes of unpublished journals at which geth is stopped; 0: no limit"),
			durationFlag("stop.timeout", time.Minute, "how long geth may take to end before it is killed"),
			boolFlag("takeover", "make this copy (a replica's datadir, a snapshot) the source of a new timeline, from the topic's end"),
			boolFlag("rebase", "open a new timeline at this database's own sequence; no older database can join it"),
			boolFlag("dry-run", "print what would be done and what it costs, and end"),
			durationFlag("takeover.window", 0, "how long to listen for the old master first; below 0: not at all (default: three of its heartbeats)"),
			durationFlag("start.timeout", time.Minute, "how long the brokers may fail to answer before geth is started"),
			stringFlag("kafka.compression", "", "none, snappy, lz4 or zstd (default: "+string(changelog.DefaultCompression)+")"),
			durationFlag("kafka.retention", 7*24*time.Hour, "retention of a topic that is created"),
		),
		Action: runMaster,
	}
}

func runMaster(c *cli.Context) error {
	if err := required(c, "cluster", "kafka.brokers", "datadir"); err != nil {
		return err
	}
	if c.Bool("attach") && c.Args().Present() {
		return usageError(fmt.Errorf("--attach follows a geth that runs already: leave out `-- %s …`", c.Args().First()))
	}
	logger, err := newLogger(c)
	if err != nil {
		return err
	}
	// Whatever the backlog, the role stays small; a GOMEMLIMIT in the environment would reach geth too.
	debug.SetMemoryLimit(master.MemoryLimit)
	kafka, err := kafkaOptions(c)
	if err != nil {
		return err
	}
	kafka.ClientID = "drover-master"
	registry := newRegistry()
	admin := c.String("admin.addr")
	if c.Bool("dry-run") {
		admin = ""
	}
	m, err := master.New(master.Options{
		Cluster:   c.String("cluster"),
		Kafka:     kafka,
		Topic:     changelog.TopicSpec{Retention: c.Duration("kafka.retention")},
		Publisher: changelog.PublisherOptions{Compression: changelog.Compression(c.String("kafka.compression"))},

		Datadir: c.String("datadir"), Chaindata: c.String("chaindata"), Attach: c.Bool("attach"),
		Geth: c.Args().Slice(), IPC: c.String("ipcpath"),
		HeartbeatInterval: c.Duration("heartbeat.interval"),
		SpoolDir:          c.String("spool.dir"), SpoolLimit: c.Int64("spool.limit"),
		StopTimeout: c.Duration("stop.timeout"), StartTimeout: c.Duration("start.timeout"),
		Takeover: c.Bool("takeover"), Rebase: c.Bool("rebase"), DryRun: c.Bool("dry-run"), TakeoverWindow: c.Duration("takeover.window"),
		Replay: replayer(kafka, c.String("datadir"), c.String("chaindata"), logger),
		Logger: logger, Registerer: registry,
	})
	if err != nil {
		return err
	}
	return serve(c.Context, admin, m, registry, logger)
}

// replayer brings a database to the change log's end with the replica's code, for a master that takes over.
func replayer(kafka changelog.Options, datadir, chaindataDir string, logger *slog.Logger) func(context.Context) (changelog.Position, error) {
	return func(ctx context.Context) (at changelog.Position, err error) {
		standard := filepath.Join(datadir, "geth", "chaindata")
		if chaindataDir != "" && filepath.Clean(chaindataDir) != standard {
			return at, usageError(fmt.Errorf("--chaindata %s: a replay needs the database at %s", chaindataDir, standard))
		}
		// Catching up takes more memory than capturing; the limit would make it crawl.
		limit := debug.SetMemoryLimit(math.MaxInt64)
		defer debug.SetMemoryLimit(limit)
		kafka.Logger = logger
		log, err := changelog.Open(ctx, kafka)
		if err != nil {
			return at, err
		}
		defer log.Close()
		r, err := replica.New(replica.Options{
			Cluster: kafka.Cluster, Log: replica.FromLog(log), Datadir: datadir, UntilSynced: true, Logger: logger,
		})
		if err != nil {
			return at, err
		}
		if err := r.Run(ctx); err != nil {
			return at, err
		}
		s := r.Status(ctx)
		return changelog.Position{Cluster: s.Cluster, Timeline: s.Timeline, Sequence: s.Sequence, Offset: s.Offset}, ctx.Err()
	}
}

package main

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/master"
)

func masterCommand() *cli.Command {
	flags := append(commonFlags(), kafkaFlags()...)
	return &cli.Command{
		Name:      "master",
		Usage:     "run a stock geth and publish every write of its database",
		ArgsUsage: "-- geth ARGS…",
		Description: "Publishes what geth's journals still hold, starts geth, and follows it until it ends; geth ends with Drover.\n" +
			"With --attach somebody else runs geth. geth needs --db.engine leveldb --state.scheme hash --gcmode archive.",
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
	m, err := master.New(master.Options{
		Cluster:   c.String("cluster"),
		Kafka:     kafka,
		Topic:     changelog.TopicSpec{Retention: c.Duration("kafka.retention")},
		Publisher: changelog.PublisherOptions{Compression: changelog.Compression(c.String("kafka.compression"))},

		Datadir: c.String("datadir"), Chaindata: c.String("chaindata"), Attach: c.Bool("attach"),
		Geth: c.Args().Slice(), IPC: c.String("ipcpath"),
		HeartbeatInterval: c.Duration("heartbeat.interval"),
		SpoolDir:          c.String("spool.dir"), SpoolLimit: c.Int64("spool.limit"),
		StopTimeout: c.Duration("stop.timeout"),
		Logger:      logger, Registerer: registry,
	})
	if err != nil {
		return err
	}
	return serve(c.Context, c.String("admin.addr"), m, registry, logger)
}

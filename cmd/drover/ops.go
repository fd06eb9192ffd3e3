package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/ops/retention"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

func opsCommand() *cli.Command {
	return &cli.Command{
		Name:        "ops",
		Usage:       "the arithmetic of operating clusters",
		Subcommands: []*cli.Command{opsRetentionCommand()},
	}
}

func opsRetentionCommand() *cli.Command {
	flags := append(commonFlags(), kafkaFlags()...)
	flags = append(flags, storeFlags()...)
	return &cli.Command{
		Name:  "retention",
		Usage: "how many snapshots may fail before a new replica cannot start",
		Description: "With --cluster, --kafka.brokers and --store the figures are a cluster's own: the topic's settings, its first frame, the\n" +
			"scheduler's last runs. --interval, --making and --restore win over what was measured. Without them all figures are given.",
		Flags: append(flags,
			durationFlag("retention", 0, "how long the topic keeps frames; 0: for ever (given figures)"),
			int64Flag("retention-bytes", 0, "retention.bytes of the topic; 0: no limit (given figures)"),
			float64Flag("rate", 0, "bytes a second by which the topic grows, for --retention-bytes"),
			durationFlag("interval", 0, "from the start of one snapshot to the start of the next"),
			durationFlag("making", 0, "from the reading of a snapshot's position until it is usable"),
			durationFlag("restore", 0, "how long a new replica takes to bring a snapshot back (default: --making)"),
			intFlag("tolerate", 3, "failures in a row that there should be room for"),
			boolFlag("json", "the figures, instead of the table"),
		),
		Action: runOpsRetention,
	}
}

func runOpsRetention(c *cli.Context) error {
	figures := retention.Figures{Retention: c.Duration("retention"), Bytes: c.Int64("retention-bytes"), Rate: c.Float64("rate")}
	if c.String("cluster") != "" {
		var err error
		if figures, err = measureRetention(c); err != nil {
			return err
		}
	}
	for name, value := range map[string]*time.Duration{"interval": &figures.Interval, "making": &figures.Making, "restore": &figures.Restore} {
		if c.IsSet(name) {
			*value = c.Duration(name)
		}
	}
	figures.Tolerate = c.Int("tolerate")
	if figures.Interval == 0 && c.String("cluster") != "" {
		return usageError(fmt.Errorf("--interval: the cluster has too few snapshots to tell it"))
	}
	plan, err := retention.Compute(figures)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return retention.JSON(os.Stdout, plan)
	}
	return retention.Table(os.Stdout, plan)
}

// measureRetention looks at a cluster.
func measureRetention(c *cli.Context) (f retention.Figures, err error) {
	for _, name := range []string{"retention", "retention-bytes", "rate"} {
		if c.IsSet(name) {
			return f, usageError(fmt.Errorf("--%s is for given figures; this cluster's own are read from its topic", name))
		}
	}
	store, _, err := openSnapshots(c, "kafka.brokers")
	if err != nil {
		return f, err
	}
	log, err := openLog(c, "drover-ops")
	if err != nil {
		return f, err
	}
	defer log.Close()
	list, err := snapshot.List(c.Context, snapshot.ListOptions{Cluster: c.String("cluster"), Store: store})
	if err != nil {
		return f, err
	}
	var points []schedule.Point
	for _, s := range list {
		points = append(points, schedule.PointOf(s))
	}
	measured, err := schedule.Measure(c.Context, log, points, time.Now)
	if err != nil {
		return f, err
	}
	state, err := schedule.ReadState(c.Context, store, c.String("cluster"))
	if err != nil {
		return f, err
	}
	firstAt, err := log.TimeAt(c.Context, measured.First)
	if err != nil {
		return f, err
	}
	return retention.Measured(retention.Observed{Measured: measured, State: state, Points: points, FirstAt: firstAt, Interval: c.Duration("interval")}), nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/ops/snapshotview"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

// alertSecretEnv has no flag beside it: command lines can be read by everybody on a machine.
const alertSecretEnv = "DROVER_ALERT_SECRET"

func snapshotScheduleCommand() *cli.Command {
	return &cli.Command{
		Name:  "schedule",
		Usage: "make a usable snapshot every interval, prune, and watch that Kafka's retention does not overtake them",
		Description: "Runs until it is stopped, or with --once makes the snapshot that is due and ends: for cron, a Kubernetes CronJob or a\n" +
			"Lambda. Snapshots are taken of a replica of its own in --datadir, which it catches up before each one, or with --live of\n" +
			"the datadir of a node that runs. A second scheduler of the same cluster stands by until the first one is gone.\n" +
			"Headroom is the time until Kafka drops what a replica started from the newest usable snapshot reads first.",
		Flags: snapshotFlags(append(append(scheduleFlags(), keepFlags()...),
			adminFlag(),
			boolFlag("json", "with --once: what was done, instead of lines"),
		)...),
		Action: runSnapshotSchedule,
	}
}

func scheduleFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("datadir", "", "geth datadir of the scheduler's own replica, empty at first; with --live that of a running node"),
		boolFlag("live", "take snapshots of --datadir as it is: a running master or replica keeps it current"),
		stringFlag("datadir.ancient", "", "with --live: directory of the freezer, where geth's flag of that name moved it"),
		durationFlag("interval", 6*time.Hour, "from the start of one snapshot to the start of the next"),
		boolFlag("once", "make the snapshot that is due, if one is, and end"),
		boolFlag("force", "with --once: make one although none is due"),
		durationFlag("check-every", time.Minute, "between two looks at the headroom, also while a snapshot takes hours"),
		durationFlag("retry.min", time.Minute, "wait after a failed run; doubled with each one more"),
		durationFlag("retry.max", 30*time.Minute, "the limit of that wait"),
		durationFlag("warn-below", 0, "headroom below which to warn (default: half of the topic's retention)"),
		durationFlag("critical-below", 0, "headroom below which to alarm (default: a quarter of the topic's retention)"),
		intFlag("failures-alarm", 3, "failed runs in a row that are critical"),
		listFlag("alert", "", "receivers of alerts: webhook:URL, alertmanager:URL, sns:ARN; without any they are logged only"),
		durationFlag("alert.repeat", 4*time.Hour, "an alert that goes on is sent again after this"),
		stringFlag("alert.secret-file", "", "file with the secret that webhooks get as Bearer token; or set "+alertSecretEnv),
		stringFlag("alert.header", "", "header for that secret (default: Authorization)"),
		stringFlag("alert.sns-endpoint", "", "URL of another SNS than AWS"),
		boolFlag("extend-retention", "raise the topic's retention.ms while snapshots fail, and put it back when a newer one is usable"),
		durationFlag("max-retention", 0, "the limit of that: what the brokers' disks can hold"),
		durationFlag("extend-below", 0, "headroom below which to extend (default: --critical-below)"),
		stringFlag("work-dir", "", "directory for the throw-away copies that are verified (default: beside a directory store)"),
		float64Flag("sample", 1, "the part of the state that a verification walks, from 0 to 1"),
		stringFlag("compression", "", "zstd or none (default: none for a directory, zstd for other stores)"),
		intFlag("parallel", 4, "files at once"),
		boolFlag("no-hard-links", "copy tables even where a hard link would do, so that snapshots survive a bad disk"),
		stringFlag("notes", "", "directory or s3://… that all schedulers of the cluster see, for their lease and notes (default: --store, which ebs: cannot be)"),
		stringFlag("node", "", "name of this node in snapshots and notes (default: the host's)"),
	}
}

func runSnapshotSchedule(c *cli.Context) error {
	if err := required(c, "cluster", "store", "datadir", "kafka.brokers"); err != nil {
		return err
	}
	logger, err := newLogger(c)
	if err != nil {
		return err
	}
	registry := newRegistry()
	log, err := openRoleLog(c, "drover-scheduler", registry, logger)
	if err != nil {
		return err
	}
	defer log.Close()
	s, err := newScheduler(c, log, registry, logger)
	if err != nil {
		return err
	}
	if !c.Bool("once") {
		return serve(c.Context, c.String("admin.addr"), s, registry, logger)
	}
	report, err := s.Once(c.Context)
	if c.Bool("json") {
		return errors.Join(snapshotview.JSON(os.Stdout, report), err)
	}
	return errors.Join(snapshotview.Report(os.Stdout, report), err)
}

// scheduleBackend opens --store, and the store of the scheduler's notes.
func scheduleBackend(c *cli.Context, log *changelog.Log, progress *schedule.Progress, logger *slog.Logger) (backend schedule.Backend, notes snapshot.Store, err error) {
	if name := orElse(c.String("notes"), c.String("store")); isEBS(name) {
		return nil, nil, usageError(errors.New("--notes is missing: EBS keeps no lease, so name a directory that all schedulers see, or s3://…"))
	} else if notes, err = openStore(c, name, logger); err != nil {
		return nil, nil, err
	}
	if isEBS(c.String("store")) {
		if err := required(c, "work-dir"); err != nil {
			return nil, nil, err
		}
		backend, err = ebsCluster(c, log, true, progress.Show, logger)
		return backend, notes, err
	}
	store := notes
	if c.String("notes") != "" {
		if store, err = openStore(c, c.String("store"), logger); err != nil {
			return nil, nil, err
		}
	}
	cluster := c.String("cluster")
	backend, err = schedule.NewStore(schedule.StoreOptions{
		Cluster: cluster, Store: store, Topic: log, Ancient: c.String("datadir.ancient"), Compression: snapshot.Compression(c.String("compression")),
		NoHardLinks: c.Bool("no-hard-links"), Node: c.String("node"), DroverVersion: version, Parallel: c.Int("parallel"),
		WorkDir: c.String("work-dir"), SampleFraction: c.Float64("sample"),
		Replay: func(ctx context.Context, datadir string) error { return replay(ctx, cluster, log, datadir, logger) },
		Keep:   c.Int("keep"), Daily: c.Int("keep-daily"), Weekly: c.Int("keep-weekly"), Monthly: c.Int("keep-monthly"),
		Margin: c.Int64("margin"), DropBroken: c.Bool("drop-broken"), OrphanAge: c.Duration("orphan-age"),
		Scheduler: progress, Logger: logger,
	})
	return backend, notes, err
}

func newScheduler(c *cli.Context, log *changelog.Log, registry prometheus.Registerer, logger *slog.Logger) (*schedule.Scheduler, error) {
	progress := new(schedule.Progress)
	backend, notes, err := scheduleBackend(c, log, progress, logger)
	if err != nil {
		return nil, err
	}
	source, err := snapshotSource(c, log, logger)
	if err != nil {
		return nil, err
	}
	alerter, err := alert.ParseAll(c.Context, split(c.String("alert")), alert.ParseOptions{
		Webhook:  alert.WebhookOptions{Header: c.String("alert.header"), SecretFile: c.String("alert.secret-file"), Secret: os.Getenv(alertSecretEnv)},
		Endpoint: c.String("alert.sns-endpoint"),
	})
	if err != nil {
		return nil, fmt.Errorf("--alert: %w", err)
	}
	return schedule.New(schedule.Options{
		Cluster: c.String("cluster"), Topic: log, Backend: backend, Source: source, Notes: notes, Interval: c.Duration("interval"),
		CheckEvery: c.Duration("check-every"), RetryMin: c.Duration("retry.min"), RetryMax: c.Duration("retry.max"),
		WarnBelow: c.Duration("warn-below"), CriticalBelow: c.Duration("critical-below"), FailuresAlarm: c.Int("failures-alarm"),
		RepeatEvery: c.Duration("alert.repeat"), Alerter: alerter,
		ExtendRetention: c.Bool("extend-retention"), ExtendBelow: c.Duration("extend-below"), MaxRetention: c.Duration("max-retention"),
		Force: c.Bool("force"), Progress: progress, Node: c.String("node"), Logger: logger, Registerer: registry,
	})
}

// snapshotSource is what the scheduler takes snapshots of.
func snapshotSource(c *cli.Context, log *changelog.Log, logger *slog.Logger) (schedule.Source, error) {
	if c.Bool("live") {
		return schedule.Live(c.String("datadir")), nil
	}
	if isEBS(c.String("store")) {
		return nil, usageError(errors.New("--store ebs: takes snapshots of the volume of a running node: add --live"))
	}
	return schedule.OwnReplica(schedule.ReplicaOptions{
		Datadir: c.String("datadir"), Logger: logger,
		CatchUp: func(ctx context.Context, datadir string) error {
			store, err := openStore(c, c.String("store"), logger)
			if err != nil {
				return err
			}
			if err := restore(ctx, c.String("cluster"), store, snapshot.Select{}, datadir, nil, logger); err != nil {
				return err
			}
			return replay(ctx, c.String("cluster"), log, datadir, logger)
		},
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/snapshotview"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/ebs"
)

// ebsFlags matter for --store ebs:. Credentials come from where every AWS program takes them.
func ebsFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("ebs.endpoint", "", "URL of another EC2 than AWS"),
		stringFlag("ebs.region", "", "region (default: the AWS configuration's)"),
		stringFlag("ebs.instance", "", "this host's instance id (default: what the metadata service says)"),
		stringFlag("ebs.zone", "", "this host's availability zone (default: what the metadata service says)"),
		stringFlag("ebs.volume-type", "", "type of the volumes that are made (default: gp3)"),
		intFlag("ebs.iops", 0, "of these volumes (default: the type's own)"),
		intFlag("ebs.throughput", 0, "of these volumes in MiB/s (default: the type's own)"),
		intFlag("ebs.initialization-rate", 0, "MiB/s, 100 to 300, at which EBS reads such a volume ahead; paid for by the GiB (default: as blocks are asked for)"),
		stringFlag("ebs.kms-key", "", "key that encrypts these volumes anew (default: as the snapshot is)"),
		listFlag("ebs.fast-restore", "", "availability zones in which the newest verified snapshot has fast restore"),
	}
}

func isEBS(store string) bool { return strings.HasPrefix(store, "ebs:") }

// ebsCluster opens --store ebs: for the command at hand. log may be nil. Only what attaches volumes has to know this host.
func ebsCluster(c *cli.Context, log *changelog.Log, attaches bool, progress func(snapshot.Progress), logger *slog.Logger) (*ebs.Cluster, error) {
	if rest := strings.TrimPrefix(c.String("store"), "ebs:"); rest != "" {
		return nil, usageError(fmt.Errorf("--store %s: want ebs: alone; --cluster says whose snapshots, --ebs.region where", c.String("store")))
	}
	restore := ebs.RestoreOptions{
		Instance: c.String("ebs.instance"), Zone: c.String("ebs.zone"), Type: c.String("ebs.volume-type"), IOPS: int32(c.Int("ebs.iops")),
		Throughput: int32(c.Int("ebs.throughput")), InitializationRate: int32(c.Int("ebs.initialization-rate")), KMSKey: c.String("ebs.kms-key"),
	}
	region := c.String("ebs.region")
	if attaches && (restore.Instance == "" || restore.Zone == "") {
		instance, zone, here, err := ebs.Here(c.Context)
		if err != nil {
			return nil, fmt.Errorf("--ebs.instance and --ebs.zone: %w", err)
		}
		restore.Instance, restore.Zone = orElse(restore.Instance, instance), orElse(restore.Zone, zone)
		region = orElse(region, here)
	}
	backend, err := ebs.New(c.Context, ebs.Options{Cluster: c.String("cluster"), Region: region, Endpoint: c.String("ebs.endpoint"), Logger: logger})
	if err != nil {
		return nil, err
	}
	opts := ebs.ClusterOptions{
		Backend: backend, Restore: restore, Mount: c.String("work-dir"), FastRestore: split(c.String("ebs.fast-restore")),
		SampleFraction: c.Float64("sample"), Parallel: c.Int("parallel"), Node: c.String("node"), DroverVersion: version,
		Keep: c.Int("keep"), Daily: c.Int("keep-daily"), Weekly: c.Int("keep-weekly"), Monthly: c.Int("keep-monthly"), Margin: c.Int64("margin"),
		Progress: progress,
	}
	if log != nil {
		opts.Topic = log
		opts.Replay = func(ctx context.Context, datadir string) error {
			return replay(ctx, c.String("cluster"), log, datadir, logger)
		}
	}
	return ebs.NewCluster(opts)
}

func orElse(value, other string) string {
	if value == "" {
		return other
	}
	return value
}

// withEBS runs one command of `drover snapshot` on --store ebs:. The log is nil without --kafka.brokers.
func withEBS(c *cli.Context, attaches bool, work func(*ebs.Cluster, *changelog.Log) error) error {
	if err := required(c, "cluster"); err != nil {
		return err
	}
	logger, err := newLogger(c)
	if err != nil {
		return err
	}
	var log *changelog.Log
	if c.String("kafka.brokers") != "" {
		if log, err = openLog(c, "drover-snapshot"); err != nil {
			return err
		}
		defer log.Close()
	}
	return withBar(func(progress func(snapshot.Progress)) error {
		cluster, err := ebsCluster(c, log, attaches, progress, logger)
		if err != nil {
			return err
		}
		return work(cluster, log)
	})
}

func createEBS(c *cli.Context) error {
	if err := required(c, "datadir"); err != nil {
		return err
	}
	return withEBS(c, false, func(cluster *ebs.Cluster, _ *changelog.Log) error {
		made, err := cluster.Create(c.Context, c.String("datadir"))
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return snapshotview.JSON(os.Stdout, made)
		}
		_, err = fmt.Printf("%s: block %d, timeline %d, sequence %d; `drover snapshot verify` makes it usable\n",
			made.ID, made.Head.Number, made.Position.Timeline, made.Position.Sequence)
		return err
	})
}

func listEBS(c *cli.Context) error {
	return withEBS(c, false, func(cluster *ebs.Cluster, log *changelog.Log) error {
		list, err := cluster.Snapshots(c.Context)
		if err != nil {
			return err
		}
		return showList(c, list, log)
	})
}

func verifyEBS(c *cli.Context) error {
	if err := required(c, "work-dir"); err != nil {
		return err
	}
	return withEBS(c, true, func(cluster *ebs.Cluster, _ *changelog.Log) error {
		s, err := cluster.Find(c.Context, snapshot.Select{ID: c.String("id"), Unverified: true})
		if err == nil {
			err = cluster.Verify(c.Context, s.ID)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Printf("%s is usable: block %d, timeline %d\n", s.ID, s.Head.Number, s.Position.Timeline)
		return err
	})
}

func restoreEBS(c *cli.Context, sel snapshot.Select) error {
	if err := required(c, "datadir"); err != nil {
		return err
	}
	return withEBS(c, true, func(cluster *ebs.Cluster, _ *changelog.Log) error {
		got, err := cluster.Restore(c.Context, sel, c.String("datadir"))
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return snapshotview.JSON(os.Stdout, got)
		}
		_, err = fmt.Printf("restored %s as volume %s (%s), mounted at %s; start with --datadir %s\n", got.From.ID, got.ID, got.Device, got.Mount, got.Datadir)
		return err
	})
}

func pruneEBS(c *cli.Context) error {
	if err := required(c, "kafka.brokers"); err != nil {
		return err
	}
	return withEBS(c, false, func(cluster *ebs.Cluster, log *changelog.Log) error {
		first, _, err := log.Bounds(c.Context)
		if err != nil {
			return err
		}
		decisions, err := cluster.Decide(c.Context, first)
		if err != nil {
			return err
		}
		if c.Bool("confirm") {
			_, err = cluster.Prune(c.Context, first)
		}
		res := snapshot.PruneResult{Decisions: decisions, DryRun: !c.Bool("confirm")}
		if c.Bool("json") {
			return errors.Join(snapshotview.JSON(os.Stdout, res), err)
		}
		return errors.Join(snapshotview.Prune(os.Stdout, res), err)
	})
}

package master

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/prometheus/client_golang/prometheus"
)

// Options configures a Master. Zero values mean the defaults named here.
type Options struct {
	// Cluster is the cluster's name; it names the topic.
	Cluster string
	// Kafka says how to reach the brokers. Its Cluster, Logger and Registerer are taken from here when empty.
	Kafka changelog.Options
	// Topic says how a topic that does not exist is created, and what one that exists is held against.
	Topic changelog.TopicSpec
	// Publisher tunes the producer (compression).
	Publisher changelog.PublisherOptions

	// Datadir is geth's --datadir. Chaindata overrides where the database is; the default is Datadir/geth/chaindata.
	Datadir   string
	Chaindata string
	// Attach follows a geth that somebody else runs. Otherwise Geth is started and stopped by the Master.
	Attach bool
	// Geth is geth's command line, the program first. It has to hold --datadir, --db.engine leveldb,
	// --state.scheme hash and --gcmode archive. A wrapper script has to pass its arguments on and end in exec.
	Geth []string
	// Stdout and Stderr receive geth's output; the defaults are the process's own.
	Stdout, Stderr io.Writer
	// IPC is the path of geth's IPC socket; the default is what geth's arguments say, else Datadir/geth.ipc.
	IPC string

	// HeartbeatInterval is the time between heartbeats; default 2 s.
	HeartbeatInterval time.Duration
	// SpoolDir is where journals are kept by hard links until they are published; see chaindata.FollowOptions.
	SpoolDir string
	// SpoolLimit is the size in bytes of unpublished journals at which geth is stopped; 0 means no limit.
	SpoolLimit int64
	// LockTimeout is how long to wait for another process to let go of the database; default 10 s.
	LockTimeout time.Duration
	// StopTimeout is how long geth may take to end after SIGTERM before it is killed; default 60 s.
	StopTimeout time.Duration
	// DrainTimeout is how long publishing the rest may take after a stop, and for how long the brokers may take nothing
	// after geth ended by itself; default 30 s.
	DrainTimeout time.Duration

	// Takeover makes a copy (a replica's database, a snapshot) the source of a new timeline at the topic's end. A database
	// that is the source already goes on as if it were not set. Not with Attach.
	Takeover bool
	// Rebase opens a new timeline at the database's own sequence, which no older database can join: the way on after a hole.
	Rebase bool
	// DryRun writes to Stdout what Run would do, and ends there.
	DryRun bool
	// TakeoverWindow is how long the topic is watched for the old master first; default three of its heartbeat
	// intervals, below 0 none. A master that said goodbye is not waited for.
	TakeoverWindow time.Duration
	// Replay applies the change log to its end to the database, which nothing has open then, and returns the position.
	// Takeover needs it, and a source that lost writes.
	Replay func(ctx context.Context) (changelog.Position, error)
	// StartTimeout is how long the brokers may fail to answer before geth is started; default 1 min.
	StartTimeout time.Duration

	at func(step string) // for tests: called at the steps of a takeover

	// Logger gets the Master's own messages; the default discards them.
	Logger *slog.Logger
	// Registerer gets the metrics; the default is none.
	Registerer prometheus.Registerer
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	if o.Datadir == "" {
		return fmt.Errorf("%w: --datadir is needed: the directory that geth has as its --datadir", ErrUsage)
	}
	if o.Attach && len(o.Geth) > 0 {
		return fmt.Errorf("%w: --attach follows a geth that runs already: leave out `-- geth …`", ErrUsage)
	}
	if !o.Attach && len(o.Geth) == 0 {
		return fmt.Errorf("%w: say how to start geth (`drover master … -- geth --datadir %s …`), or use --attach", ErrUsage, o.Datadir)
	}
	switch {
	case o.Takeover && o.Rebase:
		return fmt.Errorf("%w: --takeover goes on from the topic's end, --rebase gives it up: choose one", ErrUsage)
	case o.Takeover && o.Attach:
		return fmt.Errorf("%w: --takeover writes to the database before geth runs: leave out --attach and give geth's command line", ErrUsage)
	case o.Takeover && o.Replay == nil:
		return fmt.Errorf("%w: --takeover without a way to replay the change log", ErrUsage)
	}
	if o.Chaindata == "" {
		o.Chaindata = filepath.Join(o.Datadir, "geth", "chaindata")
	}
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Join(filepath.Dir(o.Chaindata), "drover-journals")
	}
	if o.IPC == "" {
		o.IPC = parseGethArgs(o.Geth, os.Getenv).ipcPath(o.Datadir)
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.HeartbeatInterval, 2 * time.Second}, {&o.LockTimeout, 10 * time.Second},
		{&o.StopTimeout, time.Minute}, {&o.DrainTimeout, 30 * time.Second}, {&o.StartTimeout, time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	o.Kafka.Cluster = o.Cluster
	if o.Kafka.Logger == nil {
		o.Kafka.Logger = o.Logger
	}
	if o.Kafka.Registerer == nil {
		o.Kafka.Registerer = o.Registerer
	}
	return nil
}

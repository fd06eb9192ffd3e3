package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/snapshot"
)

// errUsage is snapshot's: one sentinel for wrong options (exit code 2).
var errUsage = snapshot.ErrUsage

// Topic is what a Scheduler asks of the change log; *changelog.Log is one.
type Topic interface {
	// Bounds returns the first retained offset and the next one to be written.
	Bounds(ctx context.Context) (first, next int64, err error)
	// Join returns the offset from which a database at the position reads on.
	Join(ctx context.Context, at changelog.Position) (int64, error)
	// TimeAt returns the time of the first message at or behind offset, zero when there is none yet.
	TimeAt(ctx context.Context, offset int64) (time.Time, error)
	Retention(ctx context.Context) (changelog.Retention, error)
	SetRetention(ctx context.Context, d time.Duration) error
}

// Options are those of New. Cluster, Topic, Backend, Source, Notes and Interval are needed.
type Options struct {
	Cluster string
	Topic   Topic
	Backend Backend
	Source  Source
	// Notes keeps the lease and state.json. It is the Backend's own store where that is one; EBS has none, so it takes a
	// directory that all schedulers see, or S3.
	Notes snapshot.Store

	Interval   time.Duration // from the start of one snapshot to the start of the next
	CheckEvery time.Duration // between two looks at the headroom, also while a snapshot takes hours; default 1 min
	RetryMin   time.Duration // wait after a failed run, doubled with each one more; default 1 min
	RetryMax   time.Duration // its limit; default Interval, at most 30 min

	WarnBelow     time.Duration // headroom below which to warn; default half of the topic's retention
	CriticalBelow time.Duration // … and to alarm; default a quarter
	FailuresAlarm int           // failed runs in a row that are critical; default 3
	RepeatEvery   time.Duration // an alert that goes on is sent again after this; default 4 h
	Alerter       alert.Alerter // default: alerts are logged only

	// ExtendRetention raises the topic's retention.ms while headroom is below ExtendBelow, by steps, up to MaxRetention
	// (needed then), and puts it back when a newer snapshot is usable.
	ExtendRetention bool
	ExtendBelow     time.Duration // default CriticalBelow
	ExtendStep      time.Duration // headroom after a step; default half of the original retention
	MaxRetention    time.Duration

	Force bool // Once makes a snapshot although none is due

	Progress   *Progress             // what StoreOptions.Scheduler is; may be nil
	Node       string                // this one's name, in state.json; default: the host's
	Logger     *slog.Logger          // default: none
	Registerer prometheus.Registerer // default: none
}

// checkLimit is the time that one look at headroom may take: brokers or a store that do not answer have to be noticed.
const checkLimit = time.Minute

func (o *Options) check() error {
	if err := changelog.CheckCluster(o.Cluster); err != nil {
		return fmt.Errorf("%w: --cluster: %w", errUsage, err)
	}
	switch {
	case o.Topic == nil, o.Backend == nil, o.Source == nil, o.Notes == nil:
		return fmt.Errorf("%w: a change log, a --store, a --datadir and a store for the scheduler's notes are needed", errUsage)
	case o.Interval <= 0:
		return fmt.Errorf("%w: an --interval is needed", errUsage)
	case o.ExtendRetention && o.MaxRetention <= 0:
		return fmt.Errorf("%w: extending the retention needs a limit (--max-retention): the brokers' disks have one", errUsage)
	case o.WarnBelow > 0 && o.CriticalBelow > o.WarnBelow:
		return fmt.Errorf("%w: headroom is critical below %v and to be warned of below %v only", errUsage, o.CriticalBelow, o.WarnBelow)
	}
	for _, d := range []time.Duration{o.CheckEvery, o.RetryMin, o.RetryMax, o.WarnBelow, o.CriticalBelow, o.RepeatEvery, o.ExtendBelow, o.ExtendStep} {
		if d < 0 {
			return fmt.Errorf("%w: a duration is below zero: %v", errUsage, d)
		}
	}
	def(&o.CheckEvery, time.Minute)
	def(&o.RetryMin, min(time.Minute, o.Interval))
	def(&o.RetryMax, max(o.RetryMin, min(o.Interval, 30*time.Minute)))
	def(&o.RepeatEvery, 4*time.Hour)
	def(&o.FailuresAlarm, 3)
	if o.Node == "" {
		o.Node, _ = os.Hostname()
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	o.Logger = logger(o.Logger)
	return nil
}

func def[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

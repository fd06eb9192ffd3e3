package changelog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Retention is what the topic's settings say about how long frames stay. Kafka drops whole segments: one is dropped when
// its newest record is older than Time, or when all that is newer than it is more than Bytes. So a frame stays at least for Time,
// as long as Bytes does not take it sooner, and up to SegmentTime or SegmentBytes longer.
type Retention struct {
	Time         time.Duration `json:"time"`         // retention.ms; 0: for ever
	Bytes        int64         `json:"bytes"`        // retention.bytes; 0: no limit
	SegmentTime  time.Duration `json:"segmentTime"`  // segment.ms; 0: unknown
	SegmentBytes int64         `json:"segmentBytes"` // segment.bytes; 0: unknown
}

// maxMillis is as much of retention.ms as a time.Duration can hold: 292 years, which is for ever.
const maxMillis = int64(1<<63-1) / int64(time.Millisecond)

// Retention reads the topic's settings. Without the right to, the error is an [ErrForbidden].
func (l *Log) Retention(ctx context.Context) (r Retention, err error) {
	var values map[string]string
	err = l.retry(ctx, "read the topic's retention", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, adminTimeout)
		defer cancel()
		values, err = l.config(ctx, "retention.ms", "retention.bytes", "segment.ms", "segment.bytes")
		if forbids(err) {
			return nil // said below: no other try mends it
		}
		return err
	})
	switch {
	case err != nil:
		return r, err
	case values == nil:
		return r, l.forbidden("read its retention.ms", RightDescribeConfigs)
	}
	return parseRetention(values)
}

func parseRetention(values map[string]string) (r Retention, err error) {
	for _, name := range []string{"retention.ms", "retention.bytes"} {
		if _, err := strconv.ParseInt(values[name], 10, 64); err != nil {
			return r, fmt.Errorf("the brokers say that the topic's %s is %q, which is no number", name, values[name])
		}
	}
	r.Time, r.Bytes = millis(number(values["retention.ms"])), max(0, number(values["retention.bytes"]))
	// Not every broker tells these, and little depends on them.
	r.SegmentTime, r.SegmentBytes = millis(number(values["segment.ms"])), max(0, number(values["segment.bytes"]))
	return r, nil
}

// millis is a setting in milliseconds; none, or one without an end, is 0.
func millis(n int64) time.Duration {
	if n < 0 || n >= maxMillis {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// SetRetention sets retention.ms alone, in whole milliseconds; 0 means for ever. It takes effect on the brokers within
// moments. Without the right AlterConfigs the error is an [ErrForbidden].
func (l *Log) SetRetention(ctx context.Context, d time.Duration) error {
	value := int64(-1)
	if d < 0 || d > 0 && d < time.Millisecond {
		return fmt.Errorf("set the topic's retention: %v: want a millisecond or more, or 0 for ever", d)
	}
	if d > 0 {
		value = d.Milliseconds()
	}
	refused := false
	err := l.retry(ctx, "set the topic's retention", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, adminTimeout)
		defer cancel()
		res, err := l.client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{{
				ResourceType: kafka.ResourceTypeTopic, ResourceName: l.topic,
				Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
					Name: "retention.ms", Value: strconv.FormatInt(value, 10), ConfigOperation: kafka.ConfigOperationSet,
				}},
			}},
		})
		if err == nil {
			for _, r := range res.Resources {
				err = errors.Join(err, r.Error)
			}
		}
		if refused = forbids(err); refused {
			return nil
		}
		return err
	})
	if refused {
		return l.forbidden(fmt.Sprintf("set retention.ms=%d", value), RightAlterConfigs)
	}
	return err
}

func (l *Log) forbidden(what string, right Right) error {
	return fmt.Errorf("%w: %s: grant the Kafka user %s on topic %s", ErrForbidden, what, right, l.topic)
}

// TimeAt returns the time of the first message at or behind offset, as Kafka's retention counts it (the message's own
// timestamp). It is zero when there is none: offset is the topic's end or behind it. Errors: [NotRetainedError] for an
// offset below the first retained one, and those of [Log.Bounds].
func (l *Log) TimeAt(ctx context.Context, offset int64) (time.Time, error) {
	first, next, err := l.Bounds(ctx)
	if err != nil {
		return time.Time{}, err
	}
	gone := &NotRetainedError{Position: Position{Cluster: l.opts.Cluster, Offset: offset}, FirstOffset: first}
	switch {
	case offset < first:
		return time.Time{}, gone
	case offset >= next:
		return time.Time{}, nil
	}
	entries, err := logPages{l}.page(ctx, offset, 1)
	switch {
	case err != nil:
		return time.Time{}, err
	case len(entries) == 0: // control records alone
		return time.Time{}, nil
	}
	return entries[0].Time, nil
}

// Package alert tells people and their machinery that something needs attention: a webhook, an SNS topic, an Alertmanager.
package alert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Severities of an Alert.
const (
	Warning  = "warning"  // somebody should look within the day
	Critical = "critical" // somebody should look now
)

// Alert is one condition that holds. Name, Cluster and Labels say which one it is: an alert that is fired again with the same
// ones, and with another Severity, Summary or Value, is the same alert.
type Alert struct {
	Name     string            `json:"name"` // as Prometheus names alerts: DroverSnapshotHeadroomLow
	Cluster  string            `json:"cluster"`
	Severity string            `json:"severity"` // Warning, Critical
	Summary  string            `json:"summary"`  // one line: what is the matter, and what to do
	Labels   map[string]string `json:"labels,omitempty"`
	Value    float64           `json:"value"` // what was measured, in the unit that Summary says
	At       time.Time         `json:"at"`    // since when it holds; for Resolve: until when it held
}

// Alerter delivers alerts. Both methods may be called from any goroutine and must be safe to repeat: who calls them tries
// again after an error, and repeats an alert that still holds. They return within a bounded time (Limit at most), whether
// ctx ends or not. An error is one line and names where the alert was to go; ErrRefused is in it when trying again is of no use.
type Alerter interface {
	Fire(ctx context.Context, a Alert) error
	Resolve(ctx context.Context, a Alert) error
}

// ErrRefused means: the receiver understood and will not take it; the configuration is wrong.
var ErrRefused = errors.New("the receiver refuses it")

// ErrUsage means: a receiver's name or an option is wrong (exit code 2).
var ErrUsage = errors.New("wrong use")

// Limit is the time that one delivery may take.
const Limit = 10 * time.Second

// several delivers to all.
type several []Alerter

// Several delivers to all of them side by side, whatever becomes of the others. The error joins those of all, in one line.
// Without any, it delivers nowhere.
func Several(alerters ...Alerter) Alerter {
	if len(alerters) == 1 {
		return alerters[0]
	}
	return several(alerters)
}

func (s several) Fire(ctx context.Context, a Alert) error {
	return s.each(func(to Alerter) error { return to.Fire(ctx, a) })
}

func (s several) Resolve(ctx context.Context, a Alert) error {
	return s.each(func(to Alerter) error { return to.Resolve(ctx, a) })
}

func (s several) each(deliver func(Alerter) error) error {
	errs := make(chan error, len(s))
	for _, to := range s {
		go func() { errs <- deliver(to) }()
	}
	var failed []error
	for range s {
		if err := <-errs; err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &joined{failed}
}

// joined is errors.Join on one line.
type joined struct{ errs []error }

func (j *joined) Error() string {
	words := make([]string, len(j.errs))
	for i, err := range j.errs {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

func (j *joined) Unwrap() []error { return j.errs }

// check refuses an alert that a receiver would make no sense of.
func (a Alert) check() error {
	if a.Name == "" || a.Severity == "" || a.At.IsZero() {
		return fmt.Errorf("a bug of Drover's: an alert without name, severity or time: %+v", a)
	}
	return nil
}

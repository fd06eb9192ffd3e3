package schedule

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/drover-io/drover/ops/alert"
)

// tell sends what is new, has changed its severity or was sent long ago, and says of what is over that it is. What was
// delivered is noted, so that the next process does not send it again, nor forgets to end it.
func (s *Scheduler) tell(ctx context.Context, active []alert.Alert, undecided map[string]bool) {
	before := s.notes.get().Alerts
	var firing []Firing
	changed := false
	for _, a := range active {
		f := Firing{Alert: a}
		i := slices.IndexFunc(before, func(f Firing) bool { return f.Alert.Name == a.Name })
		if i >= 0 {
			f = before[i]
			a.At = f.Alert.At
		}
		news := i < 0 || f.Sent.IsZero() || f.Alert.Severity != a.Severity
		if news {
			s.log.Warn("alert", "name", a.Name, "severity", a.Severity, "summary", a.Summary)
		}
		if news || time.Since(f.Sent) >= s.opts.RepeatEvery {
			if s.deliver(ctx, a, true) {
				f = Firing{Alert: a, Sent: time.Now().UTC()}
			}
			changed = true
		}
		firing = append(firing, f)
	}
	for _, f := range before {
		if slices.ContainsFunc(active, func(a alert.Alert) bool { return a.Name == f.Alert.Name }) {
			continue
		}
		if undecided[f.Alert.Name] {
			firing = append(firing, f)
			continue
		}
		over := f.Alert
		over.At = time.Now()
		s.log.Info("alert is over", "name", over.Name)
		if !f.Sent.IsZero() && !s.deliver(ctx, over, false) {
			firing = append(firing, f)
			continue
		}
		changed = true
	}
	if !changed {
		return
	}
	_ = s.note(ctx, func(st *State) { st.Alerts = firing })
}

// deliver returns whether there is no use in sending it again.
func (s *Scheduler) deliver(ctx context.Context, a alert.Alert, fire bool) bool {
	if s.opts.Alerter == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*alert.Limit)
	defer cancel()
	send := s.opts.Alerter.Fire
	if !fire {
		send = s.opts.Alerter.Resolve
	}
	err := send(ctx, a)
	if err != nil {
		s.metrics.undelivered.Inc()
		s.log.Error("an alert was not delivered", "name", a.Name, "resolve", !fire, "cause", err)
	}
	return err == nil || errors.Is(err, alert.ErrRefused)
}

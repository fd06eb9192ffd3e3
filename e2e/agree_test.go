package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
	"github.com/drover-io/drover/e2e/rpcdiff"
)

// requireSameAnswers asks both nodes the whole corpus over every transport.
func requireSameAnswers(t *testing.T, master, other harness.Endpoints) []harness.Call {
	t.Helper()
	calls := rig.Must(rpcdiff.Corpus(t.Context(), master.HTTP(), 1))(t)
	methods := rpcdiff.Methods(calls)
	compared := len(methods)
	for method := range methods {
		if rpcdiff.Exempt[method] != "" {
			compared--
		}
	}
	if compared < 60 {
		t.Errorf("only %d methods are compared, want at least 60", compared)
	}
	requireSame(t, master, other, calls)
	t.Logf("compared %d calls of %d methods over HTTP, WebSocket and in batches", len(calls), compared)
	return calls
}

// requireSame asks both nodes the calls over every transport.
func requireSame(t *testing.T, master, other harness.Endpoints, calls []harness.Call) {
	t.Helper()
	differences := rig.Must(rpcdiff.Compare(t.Context(), master, other, calls))(t)
	for i, difference := range differences {
		if i == 25 {
			t.Errorf("and %d more differences", len(differences)-i)
			break
		}
		t.Errorf("answers differ: %s", difference)
	}
}

// watched are subscriptions on two nodes.
type watched struct {
	names         []string
	master, other []*harness.Subscription
}

// watch subscribes to new heads, and to all logs, on both.
func watch(t *testing.T, master, other harness.Endpoints) *watched {
	t.Helper()
	w := &watched{names: []string{"newHeads", "logs"}}
	for _, params := range [][]any{{"newHeads"}, {"logs", map[string]any{}}} {
		left := rig.Must(harness.Subscribe(t.Context(), master.WSURL(), params...))(t)
		right := rig.Must(harness.Subscribe(t.Context(), other.WSURL(), params...))(t)
		t.Cleanup(func() { left.Close(); right.Close() })
		w.master, w.other = append(w.master, left), append(w.other, right)
	}
	return w
}

// atLeast guards against the agreement of two silent nodes.
type atLeast struct{ heads, logs, removed int }

// agree waits until both sides have had the same events, in the same order, and
// as many as expected.
func (w *watched) agree(t *testing.T, limit time.Duration, want atLeast) {
	t.Helper()
	rig.Until(t, limit, func(context.Context) error {
		for i, name := range w.names {
			if err := harness.SameEvents(w.master[i], w.other[i]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		heads, _ := w.master[0].Events()
		logs, _ := w.master[1].Events()
		got := atLeast{heads: len(heads)}
		for _, log := range logs {
			if strings.Contains(log, harness.RemovedLog) {
				got.removed++
			} else {
				got.logs++
			}
		}
		if got.heads < want.heads || got.logs < want.logs || got.removed < want.removed {
			return fmt.Errorf("too few events: %+v, want at least %+v", got, want)
		}
		return nil
	})
}

// differ is nil once the two sides have had different events.
func (w *watched) differ(context.Context) error {
	if err := harness.SameEvents(w.master[0], w.other[0]); errors.Is(err, harness.ErrEventsDiffer) {
		return nil
	}
	return errors.New("both sides had the same heads")
}

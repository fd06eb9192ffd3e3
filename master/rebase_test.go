package master

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

func TestRebaseGoesOnAfterAHoleAndNoOlderDatabaseJoins(t *testing.T) {
	f := newFleet(t, 1)
	run(t, 6, f.config(f.source, "--large-at=50", "--pause-us=100"), "--rebase")
	c := f.config(f.source, "--batches=100", "--pause-us=0")
	c.Rebase = true
	run(t, 0, c, "none can join")
	_, err := replayInto(testContext(t), f.broker, f.copies[0])
	assertErrorIs(t, err, changelog.ErrTimelineMismatch, "needs a snapshot of timeline 2")
	fresh := copyOf(t, f.source)
	run(t, 0, f.config(f.source, "--batches=100", "--pause-us=0"), "")
	catchUp(t, f.broker, fresh)
	sameContent(t, f.source, fresh)
}

func TestARebaseKilledAfterItsStartCanBeRepeated(t *testing.T) {
	f := newFleet(t, 0)
	c := f.config(f.source, "--batches=50", "--pause-us=0")
	c.Rebase, c.KillAt = true, "started"
	run(t, -1, c, "")
	run(t, 4, f.config(f.source, "--batches=1"), "timeline 2")
	c.KillAt = ""
	run(t, 0, c, "")
	if tail := f.tail(t); tail.Timeline != 3 {
		t.Errorf("timeline %d", tail.Timeline)
	}
	fresh := copyOf(t, f.source)
	catchUp(t, f.broker, fresh)
	sameContent(t, f.source, fresh)
}

func TestDryRunOnlyPrints(t *testing.T) {
	f := newFleet(t, 1)
	r1 := f.copies[0]
	before, sequence := f.tail(t), currentSequence(t, r1)
	for _, rebase := range []bool{false, true} {
		opts := f.config(r1, "--batches=1").options()
		var out strings.Builder
		opts.Takeover, opts.Rebase, opts.DryRun, opts.Stdout, opts.Registerer = !rebase, rebase, true, &out, nil
		m, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Run(testContext(t)); err != nil {
			t.Fatal(err)
		}
		t.Logf("\n%s", out.String())
		if !strings.Contains(out.String(), "open timeline 2") || !strings.Contains(out.String(), "cost") {
			t.Errorf("it does not say what it would do: %s", out.String())
		}
	}
	if after := f.tail(t); after.Next != before.Next || currentSequence(t, r1) != sequence {
		t.Error("a dry run wrote")
	}
	if marker, err := chaindata.ReadMarker(chaindataDir(r1)); err != nil || marker.Role != chaindata.RoleCopy {
		t.Errorf("marker %+v, %v", marker, err)
	}
}

func TestRebaseAttachedToALiveGeth(t *testing.T) {
	datadir, address := t.TempDir(), startBroker(t)
	m, stop := runInProcess(t, attachConfig(address, datadir))
	until(t, "capturing", func() bool { return m.Status(testContext(t)).Timeline == 1 })
	// Large journals: while nobody is attached, none may come and go.
	geth := startFake(t, datadir, "--large-at=200", "--pause-us=1000", "--buffer=4194304")
	until(t, "the capture ends", func() bool { return m.ended() })
	if err := stop(); !errors.Is(err, chaindata.ErrHole) {
		t.Fatalf("got %v, want a hole", err)
	}
	opts := attachConfig(address, datadir)
	opts.Rebase, opts.Stdout = true, io.Discard
	m, stop = runInProcess(t, opts)
	until(t, "following on timeline 2", func() bool { return m.Status(testContext(t)).Timeline == 2 })
	before := m.sequence()
	until(t, "new writes", func() bool { return m.sequence() > before+1000 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	fresh := copyOf(t, datadir)
	m, stop = runInProcess(t, attachConfig(address, datadir))
	before = m.sequence()
	until(t, "new writes", func() bool { return m.sequence() > before+1000 })
	geth.stop(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	catchUp(t, address, fresh)
	sameContent(t, datadir, fresh)
}

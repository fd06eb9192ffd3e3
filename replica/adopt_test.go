package replica

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-io/drover/chaindata"
)

// unmark removes the marker of a datadir.
func unmark(t testing.TB, datadir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(datadir, "geth", "chaindata", chaindata.MarkerName)); err != nil {
		t.Fatal(err)
	}
}

// later is a copy of the stopped master's datadir, made with its marker as cp -a does, and changed.
func (r recorded) later(t testing.TB, change func(testing.TB, string)) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(r.m.datadir)); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(t, dir)
	}
	return dir
}

func adoptedCopies(t *testing.T, rec recorded) {
	early := rec.fresh(t)
	unmark(t, early)
	for name, dir := range map[string]string{
		"before the master's first start": early,
		"of the stopped master":           rec.later(t, nil),
	} {
		run := startReplica(t, rec.m.log, dir, nil)
		run.reaches(rec.m.last)
		run.stop()
		sameDatabases(t, rec.m.datadir, dir)
		marker, err := chaindata.ReadMarker(filepath.Join(dir, "geth", "chaindata"))
		if err != nil || marker.Role != chaindata.RoleCopy {
			t.Errorf("%s: marker %+v, %v", name, marker, err)
		}
	}
}

func TestAnUnmarkedCopyIsLeftAsItIsUntilTheChangeLogConfirmsIt(t *testing.T) {
	m := newMaster(t, newForge(t).file())
	dir := t.TempDir()
	m.copyTo(dir)
	unmark(t, dir)
	before, err := chaindata.Inspect(filepath.Join(dir, "geth", "chaindata"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Cluster: testCluster, Log: newMemLog(), Datadir: dir, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(context.Background()); !errors.Is(err, ErrUsage) {
		t.Errorf("an empty change log confirmed the position: %v", err)
	}
	after, err := chaindata.Inspect(filepath.Join(dir, "geth", "chaindata"))
	if err != nil || after.Sequence != before.Sequence {
		t.Errorf("the sequence moved from %d to %d (%v): the next try would not join", before.Sequence, after.Sequence, err)
	}
}

package replica

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-io/drover/replica/dbcompare"
)

// frozen returns how many blocks the two freezers hold.
func frozen(t testing.TB, a, b string) (uint64, uint64) {
	t.Helper()
	return frozenBlocks(filepath.Join(a, "geth", "chaindata")), frozenBlocks(filepath.Join(b, "geth", "chaindata"))
}

func TestEachNodeFreezesItsOwnBlocks(t *testing.T) {
	f := newForge(t)
	m := newMaster(t, f.file())
	early, late := t.TempDir(), t.TempDir()
	m.copyTo(late) // stays at the genesis until the master has frozen blocks
	m.start()
	m.copyTo(early)
	live := startReplica(t, m.log, early, nil)

	a := f.extend(f.root, 30, 3)
	m.grow(a[:20]...)
	m.payload(f.extend(a[4], 3, 1)...)  // a side chain that ends below the final block
	m.payload(f.extend(a[13], 9, 2)...) // and one that crosses it
	m.forkchoice(a[19], a[15].Hash(), a[14].Hash())
	m.stop()
	m.start() // geth freezes at the start what is final
	m.grow(a[20:]...)
	m.stop()
	live.reaches(m.last)
	live.stop()
	if mine, theirs := frozen(t, m.datadir, early); mine != 16 || theirs != 0 {
		t.Fatalf("frozen: master %d, replica %d; the master's freezer has not run, or the replica's has", mine, theirs)
	}
	sameDatabases(t, m.datadir, early)

	// The replica's own geth freezes when it is opened the next time.
	live = startReplica(t, m.log, early, nil)
	live.reaches(m.last)
	eventually(t, 20*time.Second, "the replica's freezer", func() error {
		if _, n := frozen(t, m.datadir, early); n != 16 {
			return context.DeadlineExceeded
		}
		return nil
	})
	live.stop()
	sameDatabases(t, m.datadir, early)

	// One that catches up without geth drops the same deletes.
	r := startReplica(t, m.log, late, func(o *Options) { o.UntilSynced = true })
	r.wait()
	sameDatabases(t, m.datadir, late)
	late2 := startReplica(t, m.log, late, nil)
	eventually(t, 20*time.Second, "the replica's freezer", func() error {
		if _, n := frozen(t, m.datadir, late); n != 16 {
			return context.DeadlineExceeded
		}
		return nil
	})
	late2.stop()
	sameDatabases(t, m.datadir, late)

	// A rewind below what is frozen.
	third := t.TempDir()
	m.copyTo(third) // with the freezer
	replicas := []*running{startReplica(t, m.log, early, nil), startReplica(t, m.log, late, nil), startReplica(t, m.log, third, nil)}
	m.start()
	m.grow(f.extend(a[29], 2, 2)...)
	m.setHead(7)
	m.grow(f.extend(a[6], 4, 2)...)
	m.stop()
	for i, dir := range []string{early, late, third} {
		replicas[i].reaches(m.last)
		replicas[i].stop()
		sameDatabases(t, m.datadir, dir)
	}
}

func TestCompareFindsDifferences(t *testing.T) {
	f := newForge(t)
	m := newMaster(t, f.file())
	dir := t.TempDir()
	m.start()
	m.grow(f.extend(f.root, 3, 1)...)
	m.stop()
	m.copyTo(dir)
	sameDatabases(t, m.datadir, dir)
	b, err := OpenBulk(filepath.Join(dir, "geth", "chaindata"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.db.Put([]byte("LastBlock"), make([]byte, 32), nil); err != nil {
		t.Fatal(err)
	}
	if err := b.db.Delete(canonicalKey(2), nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := dbcompare.Compare(context.Background(), m.chaindata(), filepath.Join(dir, "geth", "chaindata"), dbcompare.Options{Local: IsLocalKey})
	if err != nil {
		t.Fatal(err)
	}
	if report.Equal() || len(report.Differences) != 2 {
		t.Errorf("want two differences:\n%s", report)
	}
}

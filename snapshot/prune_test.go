package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a snapshot as decide sees it.
func made(at time.Time, offset int64, usable bool) *Snapshot {
	s := &Snapshot{Manifest: Manifest{ID: newID(at, 1), Cluster: testCluster, Created: at, Offset: offset, Timeline: 1}}
	if usable {
		s.Verified = &Verification{}
	}
	return s
}

func decided(t *testing.T, opts PruneOptions, all ...*Snapshot) (kept []int, err error) {
	t.Helper()
	opts.Cluster, opts.Store = testCluster, &DirStore{}
	if err := opts.check(); err != nil {
		t.Fatal(err)
	}
	decisions, err := (&pruning{opts: opts}).decide(all)
	for _, d := range decisions {
		if d.Why == "" {
			t.Errorf("%s: no reason", d.Snapshot.ID)
		}
		if !d.Remove {
			kept = append(kept, slices.Index(all, d.Snapshot))
		}
	}
	slices.Sort(kept)
	return kept, err
}

func TestPruneKeepsTheNewestAndOnePerPeriod(t *testing.T) {
	var all []*Snapshot // two a day for 60 days, from a Monday on
	start := time.Date(2026, 6, 1, 6, 0, 0, 0, time.UTC)
	for i := range 120 {
		all = append(all, made(start.Add(time.Duration(i)*12*time.Hour), int64(i), true))
	}
	kept, err := decided(t, PruneOptions{Keep: 3, Daily: 4, Weekly: 3, Monthly: 2}, all...)
	// 119 is of July 30, a Thursday. Days end at odd numbers, weeks at 111 and 97, June at 59.
	if want := []int{59, 97, 111, 113, 115, 117, 118, 119}; err != nil || !slices.Equal(kept, want) {
		t.Errorf("kept %v, %v, want %v", kept, err, want)
	}
	if kept, _ := decided(t, PruneOptions{Keep: 1}, all...); !slices.Equal(kept, []int{119}) {
		t.Errorf("kept %v", kept)
	}
}

func TestPruneNeverRemovesTheLastUsableSnapshot(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 6, n, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		all  []*Snapshot
		opts PruneOptions
		want []int
	}{
		"the only one":              {[]*Snapshot{made(day(1), 5, true)}, PruneOptions{Keep: 1}, []int{0}},
		"newer ones are unverified": {[]*Snapshot{made(day(1), 5, true), made(day(2), 6, false), made(day(3), 7, false)}, PruneOptions{Keep: 1}, []int{0, 1, 2}},
		"no usable one at all":      {[]*Snapshot{made(day(1), 5, false), made(day(2), 6, false)}, PruneOptions{Keep: 1}, []int{0, 1}},
		"older unverified ones go":  {[]*Snapshot{made(day(1), 5, false), made(day(2), 6, true), made(day(3), 7, true)}, PruneOptions{Keep: 1}, []int{2}},
		"the newest's offset is not known": {
			[]*Snapshot{made(day(1), 5, true), made(day(2), 8, true), made(day(3), -1, true)}, PruneOptions{Keep: 1, FirstRetained: 7}, []int{1, 2},
		},
		"an older one is out of retention": {
			[]*Snapshot{made(day(1), 5, true), made(day(2), 8, true)}, PruneOptions{Keep: 1, FirstRetained: 7}, []int{1},
		},
	} {
		if kept, err := decided(t, c.opts, c.all...); err != nil || !slices.Equal(kept, c.want) {
			t.Errorf("%s: kept %v, %v, want %v", name, kept, err, c.want)
		}
	}
}

// fault 15
func TestPruneRefusesWhenHeadroomIsShort(t *testing.T) {
	day := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	all := []*Snapshot{made(day, 5, true), made(day.Add(time.Hour), 100, true)}
	for _, c := range []struct {
		first, margin int64
		ok            bool
	}{{0, 0, true}, {101, 0, true}, {102, 0, false}, {51, 50, true}, {52, 50, false}} {
		_, err := decided(t, PruneOptions{Keep: 1, FirstRetained: c.first, Margin: c.margin}, all...)
		if ok := err == nil; ok != c.ok || !ok && !errors.Is(err, ErrHeadroom) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPruneIsADryRunUntilConfirmed(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	store := openDir(t, filepath.Join(base, "store"))
	for range 3 {
		src.write(60)
		mustVerify(t, store, src.create(store, nil).Manifest.ID)
	}
	before := objects(t, store, "")
	opts := PruneOptions{Cluster: testCluster, Store: store, Keep: 1}
	dry, err := Prune(t.Context(), opts)
	if err != nil || !dry.DryRun || dry.Objects == 0 || dry.Bytes == 0 || len(objects(t, store, "")) != len(before) {
		t.Fatalf("%+v, %v, %d objects of %d are left", dry, err, len(objects(t, store, "")), len(before))
	}
	opts.Confirm = true
	real, err := Prune(t.Context(), opts)
	if err != nil || real.DryRun || real.Objects != dry.Objects || real.Bytes != dry.Bytes || len(real.Decisions) != 3 {
		t.Fatalf("%+v, %v, foretold %+v", real, err, dry)
	}
	onlyNeeded(t, store)
	s := mustVerify(t, store, "")
	mustRestore(t, store, filepath.Join(base, "restored"), s.ID)
	src.sameAt(filepath.Join(base, "restored"), &s.Manifest)
}

func TestPruneTouchesNothingItDoesNotUnderstand(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(20)
	for name, c := range map[string]struct {
		from, to string
		want     error
		drop     bool // DropBroken removes it
	}{
		"newer format":    {`"format": 1`, `"format": 2`, ErrFutureFormat, false},
		"another cluster": {`"cluster": "test"`, `"cluster": "other"`, ErrWrongCluster, false},
		"damaged":         {`"role"`, `"rule"`, ErrForeign, true},
	} {
		store := openDir(t, filepath.Join(base, name))
		m := src.create(store, nil).Manifest
		src.write(1)
		mustVerify(t, store, src.create(store, nil).Manifest.ID)
		key := keys(testCluster).manifest(m.ID)
		body := strings.Replace(string(readAll(t, store, key)), c.from, c.to, 1)
		if err := store.Put(t.Context(), key, strings.NewReader(body), int64(len(body))); err != nil {
			t.Fatal(err)
		}
		before := len(objects(t, store, ""))
		opts := PruneOptions{Cluster: testCluster, Store: store, Keep: 1, Confirm: true, OrphanAge: -1}
		if _, err := Prune(t.Context(), opts); !errors.Is(err, c.want) || len(objects(t, store, "")) != before {
			t.Errorf("%s: %v, %d objects of %d", name, err, len(objects(t, store, "")), before)
		}
		opts.DropBroken = true
		if _, err := Prune(t.Context(), opts); (err == nil) != c.drop {
			t.Errorf("%s, with DropBroken: %v", name, err)
		}
		mustVerify(t, store, "")
		if _, err := Find(t.Context(), store, testCluster, Select{ID: m.ID, Unverified: true}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestObjectsOfAnUnfinishedCreateStayForADay(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(60)
	store := openDir(t, filepath.Join(base, "store"))
	mustVerify(t, store, src.create(store, nil).Manifest.ID)
	key := keys(testCluster).object(contentKey(sumOf([]byte("x")), plainEnding))
	if err := store.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		age  time.Duration
		want int64
	}{{0, 0}, {time.Hour, 0}, {-1, 1}} {
		res, err := Prune(t.Context(), PruneOptions{Cluster: testCluster, Store: store, Keep: 1, Confirm: true, OrphanAge: c.age})
		if err != nil || res.Orphans != c.want || res.Objects != c.want {
			t.Errorf("age %v: %+v, %v", c.age, res, err)
		}
	}
	mustVerify(t, store, "")
}

func TestListTellsWhatEachSnapshotTakesUp(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.freeze(200_000)
	src.write(60)
	store := openDir(t, filepath.Join(base, "store"))
	for range 2 {
		src.create(store, nil)
		src.write(10)
	}
	all, err := List(t.Context(), ListOptions{Cluster: testCluster, Store: store, Sizes: true})
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	var total int64
	for _, o := range objects(t, store, testCluster+"/objects/") {
		total += o.Size
	}
	for _, s := range all {
		if s.UniqueBytes <= 0 || s.UniqueBytes >= s.StoredBytes || s.StoredBytes < 200_000 {
			t.Errorf("%s: %d of %d", s.ID, s.UniqueBytes, s.StoredBytes)
		}
	}
	if union := all[0].StoredBytes + all[1].UniqueBytes; union != total {
		t.Errorf("the first and what only the second needs is %d, the store has %d", union, total)
	}
}

func TestFindTakesTheNewestUsableOrWhatIsNamed(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	store := openDir(t, filepath.Join(base, "store"))
	if _, err := Find(t.Context(), store, testCluster, Select{}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("an empty store: %v", err)
	}
	var ids []string
	var times []time.Time
	for i := range 3 {
		src.write(10)
		m := src.create(store, nil).Manifest
		ids, times = append(ids, m.ID), append(times, m.Created)
		if i < 2 {
			mustVerify(t, store, m.ID)
		}
	}
	block := func(n uint64) *uint64 { return &n }
	for name, c := range map[string]struct {
		sel  Select
		want int
		err  error
	}{
		"newest usable":      {Select{}, 1, nil},
		"newest":             {Select{Unverified: true}, 2, nil},
		"by id":              {Select{ID: ids[0]}, 0, nil},
		"by id, unverified":  {Select{ID: ids[2]}, 0, ErrUnverified},
		"by id, absent":      {Select{ID: "20200101T000000Z-1"}, 0, ErrNoSnapshot},
		"by id, nonsense":    {Select{ID: "latest"}, 0, ErrUsage},
		"by time":            {Select{Before: times[1].Add(-time.Millisecond)}, 0, nil},
		"by time, too early": {Select{Before: times[0].Add(-time.Second)}, 0, ErrNoSnapshot},
		"by block":           {Select{Block: block(18)}, 0, nil},
		"by block, exact":    {Select{Block: block(19)}, 1, nil},
		"by block, too low":  {Select{Block: block(3)}, 0, ErrNoSnapshot},
	} {
		s, err := Find(t.Context(), store, testCluster, c.sel)
		if !errors.Is(err, c.err) || err == nil && s.ID != ids[c.want] {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if store, id := ParseRef("s3://bucket/x#" + ids[0]); store != "s3://bucket/x" || id != ids[0] {
		t.Errorf("%q, %q", store, id)
	}
}

func TestTwoRunsAtTheSameTimeDoNotCollide(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(20)
	store := openDir(t, filepath.Join(base, "store"))
	create := func(at func(string)) error {
		_, err := Create(deadline(t, time.Minute), CreateOptions{Cluster: testCluster, Store: store, Datadir: src.datadir, at: at})
		return err
	}
	var second, prune error
	first := create(func(step string) {
		if step == "sent" {
			second = create(nil)
			_, prune = Prune(t.Context(), PruneOptions{Cluster: testCluster, Store: store, Keep: 1, Confirm: true})
		}
	})
	if first != nil || !errors.Is(second, ErrBusy) || !errors.Is(prune, ErrBusy) || strings.Contains(second.Error(), "\n") {
		t.Fatalf("first %v, second %v, prune %v", first, second, prune)
	}
	t.Log(second)
	if err := create(nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestACreateThatLostItsLeasePublishesNothing(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(20)
	store := openDir(t, filepath.Join(base, "store"))
	key := keys(testCluster).lease("writer")
	_, err := Create(t.Context(), CreateOptions{Cluster: testCluster, Store: store, Datadir: src.datadir, at: func(step string) {
		if step == "listed" { // another took over while this one stood still
			body := bytes.Replace(readAll(t, store, key), []byte(`"nonce": "`), []byte(`"nonce": "x`), 1)
			if err := store.Put(context.Background(), key, newBody(body), int64(len(body))); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.Is(err, ErrLeaseLost) || len(snapshots(t, store)) > 0 {
		t.Fatalf("%v, %d snapshots", err, len(snapshots(t, store)))
	}
	if _, ok := objects(t, store, key)[key]; !ok {
		t.Error("it removed the other's lease")
	}
}

func TestALeaseIsTakenFromTheDeadOnly(t *testing.T) {
	t.Parallel()
	store := openDir(t, filepath.Join(t.TempDir(), "store"))
	const key = "test/leases/writer.json"
	other := func(seconds float64) string {
		return fmt.Sprintf(`{"format":1,"purpose":"create","host":"elsewhere","boot":"another","pid":1,"started":"1","nonce":"n",`+
			`"seconds":%g,"renewed":"2026-11-21T00:00:00Z"}`, seconds)
	}
	version, err := store.Create(t.Context(), key, []byte(other(2)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, alive := context.WithCancel(deadline(t, time.Minute))
	renewed := make(chan struct{})
	go func() { // the holder on another host lives
		defer close(renewed)
		for ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
			if version, err = store.Replace(context.Background(), key, []byte(other(2)), version); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	if _, _, err := acquire(t.Context(), store, key, "prune", testLogger(t)); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	alive()
	<-renewed
	l, held, err := acquire(deadline(t, time.Minute), store, key, "prune", testLogger(t))
	if err != nil || held.Err() != nil {
		t.Fatalf("it is dead by now: %v", err)
	}
	// A renewal of ours whose answer got lost.
	if _, err := store.Replace(t.Context(), key, readAll(t, store, key), l.version); err != nil || l.confirm(t.Context()) != nil {
		t.Errorf("it lost its own lease: %v", err)
	}
	l.release()
	l.release()
	if len(objects(t, store, "")) != 0 || held.Err() == nil {
		t.Error("the lease is still there")
	}
}

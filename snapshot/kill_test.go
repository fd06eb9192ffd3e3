package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the program that gets killed: with this variable set it does what the value says.
const childEnv = "DROVER_TEST_SNAPSHOT"

type childConfig struct {
	Do             string // create, restore, prune
	Store, Datadir string
	ID             string
	NoHardLinks    bool
	KillAt         int64 // the step at which the process kills itself; 0: none
}

func TestMain(m *testing.M) {
	if config := os.Getenv(childEnv); config != "" {
		steps, err := child(config)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("steps", steps)
		return
	}
	os.Exit(m.Run())
}

func child(config string) (int64, error) {
	var c childConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return 0, err
	}
	var steps atomic.Int64
	step := func(string) {
		if steps.Add(1) == c.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	store, err := OpenDir(c.Store)
	if err != nil {
		return 0, err
	}
	store.step = step
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch c.Do {
	case "create":
		_, err = Create(ctx, CreateOptions{Cluster: testCluster, Store: store, Datadir: c.Datadir, Node: "here", NoHardLinks: c.NoHardLinks, at: step})
	case "restore":
		_, err = Restore(ctx, RestoreOptions{
			Cluster: testCluster, Store: store, Datadir: c.Datadir, Select: Select{ID: c.ID, Unverified: true}, NoHardLinks: c.NoHardLinks, at: step,
		})
	case "prune":
		_, err = Prune(ctx, PruneOptions{Cluster: testCluster, Store: store, Keep: 1, Confirm: true, at: step})
	}
	return steps.Load(), err
}

// runChild runs it to its end or its kill, and returns the number of steps of one that ended.
func runChild(t *testing.T, c childConfig) int64 {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(deadline(t, time.Minute), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if c.KillAt > 0 {
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%+v was not killed: %v\n%s", c, err, out)
		}
		return 0
	}
	if err != nil {
		t.Fatalf("%+v: %v\n%s", c, err, out)
	}
	_, count, _ := strings.Cut(strings.TrimSpace(string(out)), "steps ")
	steps, err := strconv.ParseInt(count, 10, 64)
	if err != nil || steps < 5 {
		t.Fatalf("steps: %q", out)
	}
	return steps
}

// killRounds is 5, or what DROVER_TEST_ROUNDS says (make soak).
func killRounds() int {
	if n, err := strconv.Atoi(os.Getenv("DROVER_TEST_ROUNDS")); err == nil {
		return n
	}
	return 5
}

func TestCreateKilledAnywhereLeavesNoHalfMadeSnapshotAndLosesNoSharedObject(t *testing.T) {
	t.Parallel()
	for _, noLinks := range []bool{false, true} {
		t.Run(fmt.Sprintf("copies=%v", noLinks), func(t *testing.T) {
			base := t.TempDir()
			src := newSource(t, filepath.Join(base, "datadir"))
			src.freeze(50_000)
			src.write(120)
			c := childConfig{Do: "create", Store: filepath.Join(base, "store"), Datadir: src.datadir, NoHardLinks: noLinks}
			store := openDir(t, c.Store)
			steps := runChild(t, c)
			killed := 0
			for range killRounds() {
				src.write(1 + rand.IntN(10))
				c.KillAt = 1 + rand.Int64N(steps)
				if tryChild(t, c) != nil { // a later run has fewer steps: objects are there already
					killed++
				}
			}
			if killed < killRounds()/3 {
				t.Errorf("killed %d times only", killed)
			}
			src.write(3)
			last := src.create(store, func(o *CreateOptions) { o.NoHardLinks = noLinks })
			nothingLeft(t, base)
			for _, s := range snapshots(t, store) {
				mustVerify(t, store, s.ID)
				datadir := filepath.Join(base, "restored-"+s.ID)
				mustRestore(t, store, datadir, s.ID)
				src.sameAt(datadir, &s.Manifest)
			}
			if s := mustFind(t, store); s.ID != last.Manifest.ID {
				t.Errorf("the newest usable is %s, not %s", s.ID, last.Manifest.ID)
			}
		})
	}
}

func TestWhatAKilledCreateSentIsNotSentAgain(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.freeze(300_000)
	src.write(150)
	src.settle()
	c := childConfig{Do: "create", Store: filepath.Join(base, "store"), Datadir: src.datadir, NoHardLinks: true}
	steps := runChild(t, childConfig{Do: "create", Store: filepath.Join(base, "other"), Datadir: src.datadir, NoHardLinks: true})
	c.KillAt = steps * 3 / 4
	runChild(t, c)
	store := openDir(t, c.Store)
	sent := objects(t, store, testCluster+"/objects/")
	if len(sent) == 0 {
		t.Fatal("the killed run had sent nothing")
	}
	res := src.create(store, func(o *CreateOptions) { o.NoHardLinks = true })
	for key, o := range objects(t, store, testCluster+"/objects/") {
		if before, ok := sent[key]; ok && before.Version != o.Version {
			t.Errorf("%s was sent again", key)
		}
	}
	if res.Reused == 0 {
		t.Error("nothing was reused")
	}
	t.Logf("%d objects had been sent; then %d objects, moved %d, reused %d", len(sent), res.Objects, res.Moved, res.Reused)
}

func TestRestoreKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	for _, noLinks := range []bool{false, true} {
		t.Run(fmt.Sprintf("copies=%v", noLinks), func(t *testing.T) {
			base := t.TempDir()
			src := newSource(t, filepath.Join(base, "datadir"))
			src.freeze(50_000)
			src.write(120)
			store := openDir(t, filepath.Join(base, "store"))
			m := src.create(store, nil).Manifest
			c := childConfig{Do: "restore", Store: store.root, ID: m.ID, Datadir: filepath.Join(base, "count"), NoHardLinks: noLinks}
			steps := runChild(t, c)
			resumed := 0
			for round := range killRounds() {
				c.Datadir = filepath.Join(base, fmt.Sprint("restored", round))
				for range 2 { // the second one goes on with what the first had, and is killed, too
					c.KillAt = 1 + rand.Int64N(steps)
					if _, err := os.Stat(chaindataOf(c.Datadir)); err == nil {
						break
					}
					if err := tryChild(t, c); err == nil {
						break
					}
				}
				if _, err := os.Stat(chaindataOf(c.Datadir)); errors.Is(err, fs.ErrNotExist) {
					if mustRestore(t, store, c.Datadir, m.ID).Resumed {
						resumed++
					}
				}
				src.sameAt(c.Datadir, m)
			}
			if resumed == 0 {
				t.Error("no restore was resumed")
			}
		})
	}
}

// tryChild is runChild for a kill that may come after the end.
func tryChild(t *testing.T, c childConfig) error {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(deadline(t, time.Minute), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%+v: %v\n%s", c, err, out)
	}
	return err
}

func TestPruneKilledAnywhereLeavesOnlyWholeSnapshots(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(60)
	template := openDir(t, filepath.Join(base, "template"))
	for range 4 {
		src.write(10)
		mustVerify(t, template, src.create(template, func(o *CreateOptions) { o.NoHardLinks = true }).Manifest.ID)
	}
	copyStore := func(name string) *DirStore {
		to := filepath.Join(base, name)
		if out, err := exec.Command("cp", "-r", template.root, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return openDir(t, to)
	}
	steps := runChild(t, childConfig{Do: "prune", Store: copyStore("count").root})
	for round := range killRounds() {
		store := copyStore(fmt.Sprint("store", round))
		killAt := 1 + rand.Int64N(steps)
		runChild(t, childConfig{Do: "prune", Store: store.root, KillAt: killAt})
		left := snapshots(t, store)
		if len(left) == 0 {
			t.Fatalf("killed at step %d: nothing is left", killAt)
		}
		for _, s := range left {
			datadir := filepath.Join(base, fmt.Sprint("restored", round, s.ID))
			mustRestore(t, store, datadir, s.ID)
			src.sameAt(datadir, &s.Manifest)
		}
		runChild(t, childConfig{Do: "prune", Store: store.root})
		mustVerify(t, store, "")
		onlyNeeded(t, store)
		nothingLeft(t, store.root)
	}
}

// onlyNeeded asserts that the store holds just one snapshot and what it refers to.
func onlyNeeded(t *testing.T, store *DirStore) {
	t.Helper()
	all := snapshots(t, store)
	if len(all) != 1 {
		t.Fatalf("%d snapshots are left", len(all))
	}
	files, err := all[0].files(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	needed := make(objectSet)
	needed.add(files)
	for key := range objects(t, store, testCluster+"/objects/") {
		if !needed.has(strings.TrimPrefix(key, testCluster+"/objects/")) {
			t.Errorf("%s is needed by nothing", key)
		}
	}
	for key := range objects(t, store, testCluster+"/snapshots/") {
		if !strings.Contains(key, all[0].ID) {
			t.Errorf("%s is of no snapshot", key)
		}
	}
	if leases := objects(t, store, testCluster+"/leases/"); len(leases) > 0 {
		t.Errorf("leases: %v", leases)
	}
}

func snapshots(t testing.TB, store Store) []*Snapshot {
	t.Helper()
	all, err := List(t.Context(), ListOptions{Cluster: testCluster, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Broken != nil {
			t.Fatal(s.Broken)
		}
	}
	return all
}

func mustFind(t testing.TB, store Store) *Snapshot {
	t.Helper()
	s, err := Find(t.Context(), store, testCluster, Select{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settle waits until the checksums of what was written may be remembered.
func (s *source) settle() {
	s.t.Helper()
	wait := time.NewTimer(settled + 100*time.Millisecond)
	<-wait.C
}

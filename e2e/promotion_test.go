package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
)

// promotionCluster has a master at block 0, and copies of it.
func promotionCluster(t *testing.T, f *fixture, copies ...string) (*cluster, []string) {
	t.Helper()
	c := newCluster(t, f)
	var datadirs []string
	for _, name := range copies {
		datadirs = append(datadirs, c.copyAtRest(t, name, 1))
	}
	return c, datadirs
}

// at is the cluster with another datadir for its master, and a directory of its own for logs.
func (c *cluster) at(t *testing.T, datadir string) *cluster {
	t.Helper()
	other := *c
	other.master, other.dir = datadir, datadir+".run"
	makeDir(t, other.dir)
	return &other
}

// fresh are the flags of a replica that serves a chain whose clock stands still.
var fresh = []string{"--ready.max-age", "0s"}

func feed(t *testing.T, master *node, blocks []*types.Block) {
	t.Helper()
	for _, block := range blocks {
		if err := feedOne(t.Context(), master, block); err != nil {
			t.Fatal(err)
		}
	}
}

func feedOne(ctx context.Context, master *node, block *types.Block) error {
	if err := master.engine.Insert(ctx, block); err != nil {
		return err
	}
	return master.engine.Head(ctx, block.Hash(), common.Hash{}, common.Hash{})
}

func gethOf(t *testing.T, master *node) int {
	t.Helper()
	children := must(master.Children())(t)
	if len(children) != 1 {
		t.Fatalf("the master has the children %v", children)
	}
	return children[0]
}

// behindBoundary counts the frames of an older timeline that stand behind the start of the newest.
func (c *cluster) behindBoundary(t *testing.T) (frames int) {
	t.Helper()
	log := must(changelog.Open(t.Context(), changelog.Options{Brokers: []string{localhost(c.brokerPort)}, Cluster: c.name}))(t)
	defer log.Close()
	first, next, err := log.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newest := uint64(0)
	err = log.ReadRange(t.Context(), first, next, func(e changelog.Entry) error {
		if newest = max(newest, e.Frame.Timeline); e.Frame.Timeline < newest && e.Frame.Kind == changelog.KindBatch {
			frames++
		}
		return e.Err
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// Fault 9: master and geth stand still, a replica is promoted, and then they wake.
func TestPromotedReplicaIsFollowedAndThePausedMasterEnds(t *testing.T) {
	f := generate(t, chainSize{blocks: 120, txs: 20})
	c, dirs := promotionCluster(t, f, "r1", "r2")
	master := c.startMaster(t)
	r1, r2 := c.startReplica(t, dirs[0], fresh...), c.startReplica(t, dirs[1], fresh...)
	feed(t, master, f.blocks[:60])
	// From here on there is something to freeze: each geth does, when it starts.
	if err := master.engine.Head(t.Context(), f.blocks[59].Hash(), f.blocks[40].Hash(), f.blocks[30].Hash()); err != nil {
		t.Fatal(err)
	}
	r1.waitReady(t, time.Minute)
	r2.waitReady(t, time.Minute)
	sameHead(t, time.Minute, master, r2)

	r1.stop(t)
	promoted := c.at(t, dirs[0])
	requireExit(t, 2, promoted.masterCommand(t, port(t), harness.NodeArgs(dirs[0], filepath.Join(c.dir, "jwt"), endpoints(t))), "--takeover")
	geth := gethOf(t, master)
	for _, pid := range []int{geth, master.Pid()} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	next := promoted.startMaster(t, "--takeover", "--takeover.window", "500ms")
	feed(t, next, f.blocks[60:90])
	sameHead(t, time.Minute, next, r2)

	// The old geth writes a side branch before its master has seen anything.
	if err := syscall.Kill(geth, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, block := range f.extend(t, f.blocks[59], 3, 7) {
		if err := feedOne(t.Context(), master, block); err != nil {
			t.Fatal(err)
		}
	}
	if err := master.Resume(); err != nil {
		t.Fatal(err)
	}
	requireEnd(t, 4, master.Process, "timeline 2")
	if harness.Alive(geth) {
		t.Error("the old geth runs on")
	}
	if n := c.behindBoundary(t); n == 0 {
		t.Error("the fault did not fire: nothing of the old master stands behind the boundary")
	} else {
		t.Logf("%d frames of the old master stand behind the boundary", n)
	}
	feed(t, next, f.blocks[90:])
	sameHead(t, time.Minute, next, r2)
	checkPromoted(t, promoted, next, r2, dirs)
}

// checkPromoted stops everything and compares; then copies of the promoted source have to work as replicas.
func checkPromoted(t *testing.T, promoted *cluster, master, r2 *node, dirs []string) {
	t.Helper()
	online := filepath.Join(promoted.dir, "online")
	makeDir(t, filepath.Dir(harness.Chaindata(online)))
	if _, err := chaindata.Copy(t.Context(), harness.Chaindata(promoted.master), harness.Chaindata(online), chaindata.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	master.stop(t)
	r2.stop(t)
	copied := filepath.Join(promoted.dir, "copied")
	copyTree(t, promoted.master, copied)
	for _, dir := range []string{dirs[1], online, copied} {
		promoted.sync(t, time.Minute, dir)
		requireEqual(t, harness.Chaindata(promoted.master), harness.Chaindata(dir))
	}
	// The new source starts again as any other, and the copies follow.
	again := promoted.startMaster(t)
	last := must(again.engine.Build(t.Context(), head(t, again), 1, 100*time.Millisecond))(t)
	if err := again.engine.Head(t.Context(), last.Hash(), common.Hash{}, common.Hash{}); err != nil {
		t.Fatal(err)
	}
	again.stop(t)
	for _, dir := range []string{dirs[1], online, copied} {
		promoted.sync(t, time.Minute, dir)
		requireEqual(t, harness.Chaindata(promoted.master), harness.Chaindata(dir))
	}
}

func head(t *testing.T, n *node) *types.Header {
	t.Helper()
	header := new(types.Header)
	if err := harness.Ask(t.Context(), n.HTTP(), header, "eth_getBlockByNumber", "latest", false); err != nil {
		t.Fatal(err)
	}
	return header
}

// The machine loses power: what geth had handed to the kernel, and Drover had published, is not on the disk.
func TestMasterThatLostPowerGoesOnOnANewTimeline(t *testing.T) {
	f := generate(t, chainSize{blocks: 120, txs: 20})
	c, dirs := promotionCluster(t, f, "r1")
	master := c.startMaster(t)
	replica := c.startReplica(t, dirs[0], fresh...)
	feed(t, master, f.blocks[:80])
	sameHead(t, time.Minute, master, replica)
	geth := gethOf(t, master)
	kill9(geth)
	master.Kill()
	until(t, time.Minute, func(context.Context) error {
		if harness.Alive(geth) {
			return fmt.Errorf("geth is alive")
		}
		return nil
	})
	dir := harness.Chaindata(c.master)
	before := must(chaindata.Inspect(dir))(t)
	journal := filepath.Join(dir, fmt.Sprintf("%06d.log", before.Journals[len(before.Journals)-1]))
	content := must(os.ReadFile(journal))(t)
	if err := os.Remove(journal); err != nil { // the spool's link shares the file
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, content[:len(content)*2/3], 0o644); err != nil {
		t.Fatal(err)
	}
	after := must(chaindata.Inspect(dir))(t)
	if after.Sequence >= before.Sequence {
		t.Fatal("the fault did not fire")
	}
	t.Logf("sequences %d to %d are lost", after.Sequence+1, before.Sequence)

	master = c.startMaster(t, "--takeover.window", "500ms")
	feed(t, master, f.blocks[80:])
	sameHead(t, time.Minute, master, replica)
	if s := must(master.status(t.Context()))(t); s.Timeline != 2 {
		t.Errorf("timeline %d", s.Timeline)
	}
	master.stop(t)
	replica.stop(t)
	c.sync(t, time.Minute, dirs[0])
	requireEqual(t, dir, harness.Chaindata(dirs[0]))
}

var tookOver = regexp.MustCompile(`msg="took over".*`)

// TestPromotionTime kills the master and promotes replicas one after the other, DROVER_E2E_PROMOTIONS times (2). It logs the
// parts of the time; it holds none of them to a limit.
func TestPromotionTime(t *testing.T) {
	rounds := 2
	if value := os.Getenv("DROVER_E2E_PROMOTIONS"); value != "" {
		rounds = must(strconv.Atoi(value))(t)
	}
	f := generate(t, chainSize{blocks: 120, txs: 20})
	names := []string{"watcher"}
	for i := range rounds {
		names = append(names, fmt.Sprintf("r%d", i))
	}
	c, dirs := promotionCluster(t, f, names...)
	master := c.startMaster(t)
	watcher := c.startReplica(t, dirs[0], fresh...)
	feed(t, master, f.blocks[:40])
	var totals []time.Duration
	for round, dir := range dirs[1:] {
		c.sync(t, time.Minute, dir) // a caught-up replica, stopped in order
		sameHead(t, time.Minute, master, watcher)
		geth := gethOf(t, master)
		block := f.blocks[40+round]
		began := time.Now()
		kill9(geth)
		master.Kill()
		master = c.at(t, dir).startMaster(t, "--takeover")
		feed(t, master, []*types.Block{block})
		sameHead(t, time.Minute, master, watcher)
		arrived := time.Since(began)
		watcher.waitReady(t, time.Minute)
		ready := time.Since(began)
		until(t, time.Minute, func(context.Context) error {
			if !tookOver.MatchString(master.Output()) {
				return fmt.Errorf("no line yet")
			}
			return nil
		})
		t.Logf("kill to first block on another replica %v, to ready %v; %s", arrived.Round(time.Millisecond), ready.Round(time.Millisecond),
			tookOver.FindString(master.Output()))
		totals = append(totals, arrived)
	}
	slices.Sort(totals)
	t.Logf("%d promotions: median %v, worst %v", len(totals), totals[len(totals)/2], totals[len(totals)-1])
	master.stop(t)
	watcher.stop(t)
	c.sync(t, time.Minute, dirs[0])
	requireEqual(t, harness.Chaindata(dirs[len(dirs)-1]), harness.Chaindata(dirs[0]))
}

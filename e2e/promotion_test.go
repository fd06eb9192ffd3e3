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
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// promotionCluster has a master at block 0, and copies of it.
func promotionCluster(t *testing.T, f *rig.Chain, copies ...string) (*cluster, []string) {
	t.Helper()
	c := newCluster(t, f)
	var datadirs []string
	for _, name := range copies {
		datadirs = append(datadirs, c.CopyAtRest(t, name, 1))
	}
	return c, datadirs
}

// Fault 9: master and geth stand still, a replica is promoted, and then they wake.
func TestPromotedReplicaIsFollowedAndThePausedMasterEnds(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 120, Txs: 20})
	c, dirs := promotionCluster(t, f, "r1", "r2")
	master := c.StartMaster(t)
	r1, r2 := c.StartReplica(t, dirs[0], rig.Fresh...), c.StartReplica(t, dirs[1], rig.Fresh...)
	master.Feed(t, f.Blocks[:60]...)
	// From here on there is something to freeze: each geth does, when it starts.
	if err := master.Engine.Head(t.Context(), f.Blocks[59].Hash(), f.Blocks[40].Hash(), f.Blocks[30].Hash()); err != nil {
		t.Fatal(err)
	}
	r1.WaitReady(t, time.Minute)
	r2.WaitReady(t, time.Minute)
	rig.SameHead(t, time.Minute, master, r2)

	r1.End(t)
	promoted := c.At(t, dirs[0])
	rig.RequireExit(t, 2, promoted.MasterCommand(t, rig.Port(t), harness.NodeArgs(dirs[0], filepath.Join(c.Dir, "jwt"), rig.Endpoints(t))), "--takeover")
	geth := master.Geth(t)
	for _, pid := range []int{geth, master.Pid()} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	next := promoted.StartMaster(t, "--takeover", "--takeover.window", "500ms")
	next.Feed(t, f.Blocks[60:90]...)
	rig.SameHead(t, time.Minute, next, r2)

	// The old geth writes a side branch before its master has seen anything.
	if err := syscall.Kill(geth, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, block := range f.Extend(t, f.Blocks[59], 3, 7) {
		if err := master.FeedOne(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	}
	if err := master.Resume(); err != nil {
		t.Fatal(err)
	}
	rig.RequireEnd(t, 4, master.Process, "timeline 2")
	if harness.Alive(geth) {
		t.Error("the old geth runs on")
	}
	if n := c.BehindBoundary(t); n == 0 {
		t.Error("the fault did not fire: nothing of the old master stands behind the boundary")
	} else {
		t.Logf("%d frames of the old master stand behind the boundary", n)
	}
	next.Feed(t, f.Blocks[90:]...)
	rig.SameHead(t, time.Minute, next, r2)
	checkPromoted(t, promoted, next, r2, dirs)
}

// checkPromoted stops everything and compares; then copies of the promoted source have to work as replicas.
func checkPromoted(t *testing.T, promoted *rig.Cluster, master, r2 *rig.Node, dirs []string) {
	t.Helper()
	online := filepath.Join(promoted.Dir, "online")
	rig.MakeDir(t, filepath.Dir(harness.Chaindata(online)))
	if _, err := chaindata.Copy(t.Context(), harness.Chaindata(promoted.Master), harness.Chaindata(online), chaindata.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	master.End(t)
	r2.End(t)
	copied := filepath.Join(promoted.Dir, "copied")
	rig.CopyTree(t, promoted.Master, copied)
	for _, dir := range []string{dirs[1], online, copied} {
		promoted.Sync(t, time.Minute, dir)
		rig.RequireEqual(t, promoted.Master, dir)
	}
	// The new source starts again as any other, and the copies follow.
	again := promoted.StartMaster(t)
	last := rig.Must(again.Engine.Build(t.Context(), head(t, again), 1, 100*time.Millisecond))(t)
	if err := again.Engine.Head(t.Context(), last.Hash(), common.Hash{}, common.Hash{}); err != nil {
		t.Fatal(err)
	}
	again.End(t)
	for _, dir := range []string{dirs[1], online, copied} {
		promoted.Sync(t, time.Minute, dir)
		rig.RequireEqual(t, promoted.Master, dir)
	}
}

func head(t *testing.T, n *rig.Node) *types.Header {
	t.Helper()
	header := new(types.Header)
	if err := harness.Ask(t.Context(), n.HTTP(), header, "eth_getBlockByNumber", "latest", false); err != nil {
		t.Fatal(err)
	}
	return header
}

// The machine loses power: what geth had handed to the kernel, and Drover had published, is not on the disk.
func TestMasterThatLostPowerGoesOnOnANewTimeline(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 120, Txs: 20})
	c, dirs := promotionCluster(t, f, "r1")
	master := c.StartMaster(t)
	replica := c.StartReplica(t, dirs[0], rig.Fresh...)
	master.Feed(t, f.Blocks[:80]...)
	rig.SameHead(t, time.Minute, master, replica)
	geth := master.Geth(t)
	rig.Kill9(geth)
	master.Kill()
	rig.Until(t, time.Minute, func(context.Context) error {
		if harness.Alive(geth) {
			return fmt.Errorf("geth is alive")
		}
		return nil
	})
	dir := harness.Chaindata(c.Master)
	before := rig.Must(chaindata.Inspect(dir))(t)
	journal := filepath.Join(dir, fmt.Sprintf("%06d.log", before.Journals[len(before.Journals)-1]))
	content := rig.Must(os.ReadFile(journal))(t)
	if err := os.Remove(journal); err != nil { // the spool's link shares the file
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, content[:len(content)*2/3], 0o644); err != nil {
		t.Fatal(err)
	}
	after := rig.Must(chaindata.Inspect(dir))(t)
	if after.Sequence >= before.Sequence {
		t.Fatal("the fault did not fire")
	}
	t.Logf("sequences %d to %d are lost", after.Sequence+1, before.Sequence)

	master = c.StartMaster(t, "--takeover.window", "500ms")
	master.Feed(t, f.Blocks[80:]...)
	rig.SameHead(t, time.Minute, master, replica)
	if s := rig.Must(master.Status(t.Context()))(t); s.Timeline != 2 {
		t.Errorf("timeline %d", s.Timeline)
	}
	master.End(t)
	replica.End(t)
	c.Sync(t, time.Minute, dirs[0])
	rig.RequireEqual(t, c.Master, dirs[0])
}

var tookOver = regexp.MustCompile(`msg="took over".*`)

// TestPromotionTime kills the master and promotes replicas one after the other, DROVER_E2E_PROMOTIONS times (2). It logs the
// parts of the time; it holds none of them to a limit.
func TestPromotionTime(t *testing.T) {
	rounds := 2
	if value := os.Getenv("DROVER_E2E_PROMOTIONS"); value != "" {
		rounds = rig.Must(strconv.Atoi(value))(t)
	}
	f := rig.Generate(t, rig.Size{Blocks: 120, Txs: 20})
	names := []string{"watcher"}
	for i := range rounds {
		names = append(names, fmt.Sprintf("r%d", i))
	}
	c, dirs := promotionCluster(t, f, names...)
	master := c.StartMaster(t)
	watcher := c.StartReplica(t, dirs[0], rig.Fresh...)
	master.Feed(t, f.Blocks[:40]...)
	var totals []time.Duration
	for round, dir := range dirs[1:] {
		c.Sync(t, time.Minute, dir) // a caught-up replica, stopped in order
		rig.SameHead(t, time.Minute, master, watcher)
		geth := master.Geth(t)
		block := f.Blocks[40+round]
		began := time.Now()
		rig.Kill9(geth)
		master.Kill()
		master = c.At(t, dir).StartMaster(t, "--takeover")
		master.Feed(t, []*types.Block{block}...)
		rig.SameHead(t, time.Minute, master, watcher)
		arrived := time.Since(began)
		watcher.WaitReady(t, time.Minute)
		ready := time.Since(began)
		rig.Until(t, time.Minute, func(context.Context) error {
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
	master.End(t)
	watcher.End(t)
	c.Sync(t, time.Minute, dirs[0])
	rig.RequireEqual(t, dirs[len(dirs)-1], dirs[0])
}

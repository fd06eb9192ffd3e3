package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/drover-io/drover/e2e/harness"
)

// bootLimit is the time in which a replica has to become ready.
const bootLimit = 10 * time.Minute

// grownPart is the part of the chain that comes after the first snapshot: it grows by 5 %.
const grownPart = 21

func newGrowthFigure() *figure {
	f := newFigure("growth", "bytes that a second `drover snapshot create` moves after geth imported 5 % more blocks ÷ bytes of the database",
		&target{Series: "moved ÷ bytes", Limit: 0.1, size: true})
	f.note("no hard links, which move nothing at all; geth's own LevelDB with all of its compactions, freezer included")
	return f
}

func newBootFigure() *figure {
	f := newFigure("boot", "`drover replica --snapshot` on an empty datadir, from process start until /readyz says 200")
	f.note("the snapshot is in a directory on the same disk, its tables become hard links; what is replayed is the last 1/%d of the chain", grownPart)
	f.note("the parts are from the replica's own log lines; restore holds the start of the process, open what is between restore and the first frame")
	return f
}

// boots takes a snapshot of a master's database, lets it grow, takes another, and starts a replica from the first one.
func (b *bench) boots(ctx context.Context) (_ []*figure, err error) {
	if !b.wants("growth") && !b.wants("boot") {
		return nil, nil
	}
	first, second, err := b.splitChain()
	if err != nil {
		return nil, fmt.Errorf("boot: %w", err)
	}
	growth, boot := newGrowthFigure(), newBootFigure()
	var figures []*figure
	for _, f := range []*figure{growth, boot} {
		if b.wants(f.Name) {
			figures = append(figures, f)
		}
	}
	for run := range b.runs {
		for _, f := range figures {
			f.Load = append(f.Load, load())
		}
		b.say("run %d of %d: growth and boot (load %.2f)", run+1, b.runs, load())
		if err := b.bootRun(ctx, growth, boot, first, second); err != nil {
			return figures, fmt.Errorf("boot, run %d: %w", run+1, err)
		}
	}
	return figures, nil
}

// splitChain writes the chain as two files that are imported one after the other.
func (b *bench) splitChain() (first, second string, err error) {
	blocks, err := readBlocks(b.chainFile(), b.chainLength())
	if err != nil {
		return "", "", err
	}
	cut := len(blocks) - max(1, len(blocks)/grownPart)
	first, second = filepath.Join(b.dir, "first.rlp"), filepath.Join(b.dir, "second.rlp")
	return first, second, errors.Join(writeBlocks(first, blocks[:cut]), writeBlocks(second, blocks[cut:]))
}

// chainLength is the number of blocks in the chain's file, which --chain may have brought.
func (b *bench) chainLength() int {
	file, err := os.Open(b.chainFile())
	if err != nil {
		return b.blocks
	}
	defer file.Close()
	n := 0
	for stream := rlp.NewStream(file, 0); ; n++ {
		if _, err := stream.Raw(); err != nil {
			return n
		}
	}
}

func writeBlocks(path string, blocks []*types.Block) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	for _, block := range blocks {
		if err := rlp.Encode(file, block); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return file.Close()
}

func (b *bench) bootRun(ctx context.Context, growth, boot *figure, first, second string) (err error) {
	master, err := b.fresh("boot-master")
	if err != nil {
		return err
	}
	store := filepath.Join(b.dir, "boot-store")
	c, err := b.newCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end(c), b.drop(master), b.drop(store)) }()
	if err := b.imports(ctx, c, master, first); err != nil {
		return err
	}
	_, old, err := b.create(ctx, store, master, "--no-hard-links")
	if err != nil {
		return err
	}
	if _, err := b.drive(ctx, nil, "verify", "--store", store); err != nil {
		return err
	}
	if err := b.imports(ctx, c, master, second); err != nil {
		return err
	}
	if b.wants("growth") {
		_, now, err := b.create(ctx, store, master, "--no-hard-links")
		if err != nil {
			return err
		}
		had, has := float64(old.Manifest.Files.Bytes), float64(now.Manifest.Files.Bytes)
		growth.add("database", "MB", has/1e6)
		growth.add("growth", "%", 100*(has-had)/had)
		growth.add("moved", "MB", float64(now.Moved)/1e6)
		growth.add("moved ÷ bytes", "", float64(now.Moved)/has)
	}
	if !b.wants("boot") {
		return nil
	}
	boot.add("database", "MB", float64(old.Manifest.Files.Bytes)/1e6)
	return b.bootReplica(ctx, boot, c, store+"#"+old.Manifest.ID)
}

// imports has a master import a file of blocks.
func (b *bench) imports(ctx context.Context, c *cluster, datadir, file string) error {
	_, err := b.timed(ctx, b.masterCommand(c, datadir, append(harness.StorageArgs(datadir), "import", "--nocompaction", file)...))
	return err
}

func (b *bench) bootReplica(ctx context.Context, f *figure, c *cluster, ref string) (err error) {
	port, err := harness.FreePort()
	if err != nil {
		return err
	}
	datadir := filepath.Join(b.dir, "boot-replica")
	defer func() { err = errors.Join(err, b.drop(datadir)) }()
	quiet()
	began := time.Now()
	// The master has ended, so what it last said grows old.
	p, err := b.start(b.replicaCommand(c, datadir, "--snapshot", ref, "--admin.addr", localhost(port), "--stale", "serve", "--ready.max-heartbeat-age", "24h"))
	if err != nil {
		return err
	}
	err = harness.Until(ctx, bootLimit, 10*time.Millisecond, func(ctx context.Context) error {
		if !p.Running() {
			return fmt.Errorf("the replica has ended:\n%s", p.Tail(10))
		}
		return ready(ctx, port)
	})
	is := time.Now()
	if err == nil {
		err = bootParts(f, p.Output(), began, is)
	}
	_, stop := p.Stop(time.Minute)
	return errors.Join(err, stop)
}

// bootSteps are the lines that end a part, in order.
var bootSteps = []struct{ part, line string }{
	{"— restore", "restored a snapshot"},
	{"— open", "joined the change log"},
	{"— replay", "caught up"},
	{"— open geth", "geth is open"},
}

// bootParts takes the parts from what a replica wrote.
func bootParts(f *figure, output string, began, ready time.Time) error {
	f.seconds("to ready", ready.Sub(began))
	last := began
	for _, step := range bootSteps {
		match := regexp.MustCompile(`(?m)^time=(\S+) .*msg=` + strconv.Quote(regexp.QuoteMeta(step.line))).FindStringSubmatch(output)
		if match == nil && step.line == "caught up" {
			continue // so few frames that geth was opened at once, and applied them
		}
		if match == nil {
			return fmt.Errorf("the replica has not written when it was done with %q", step.line)
		}
		at, err := time.Parse(time.RFC3339Nano, match[1])
		if err != nil {
			return fmt.Errorf("a time in the replica's log: %w", err)
		}
		f.seconds(step.part, at.Sub(last))
		last = at
	}
	f.seconds("— ready", ready.Sub(last))
	return nil
}

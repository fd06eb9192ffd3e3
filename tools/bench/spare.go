package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"

	"github.com/drover-io/drover/e2e/harness"
)

func newSpareFigure() *figure {
	f := newFigure("spare", "capture where a core is free: geth on the first core alone, without Drover and with Drover and the broker on the second",
		&target{Series: "wall ratio", Limit: 1.03})
	f.note("taskset pins them; geth uses more than one core when it may, so its times are longer than those of capture")
	return f
}

// spare measures capture with geth, and nothing else, on one core: what is left is what capture costs geth, not
// what one core too few costs both.
func (b *bench) spare(ctx context.Context) ([]*figure, error) {
	if !b.wants("spare") {
		return nil, nil
	}
	if runtime.NumCPU() < 2 {
		return nil, errors.New("spare: there is one core only")
	}
	f := newSpareFigure()
	for run := range b.runs {
		if err := b.spareRun(ctx, f, run); err != nil {
			return []*figure{f}, fmt.Errorf("spare, run %d: %w", run+1, err)
		}
	}
	return []*figure{f}, nil
}

func (b *bench) spareRun(ctx context.Context, f *figure, run int) error {
	f.Load = append(f.Load, load())
	datadir, err := b.fresh("spare-plain")
	if err != nil {
		return err
	}
	quiet()
	b.say("run %d of %d: plain geth import on one core (load %.2f)", run+1, b.runs, load())
	plain, err := b.timed(ctx, onCore(0, b.command("geth-import", b.geth, b.importArgs(datadir)...)))
	if err := errors.Join(err, b.drop(datadir)); err != nil {
		return err
	}
	if datadir, err = b.fresh("spare-captured"); err != nil {
		return err
	}
	c, err := b.newCluster(ctx)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", "1", strconv.Itoa(c.broker.Pid())).CombinedOutput(); err != nil {
		return fmt.Errorf("taskset: %w: %s", err, out)
	}
	quiet()
	b.say("run %d of %d: geth import under capture on one core of two (load %.2f)", run+1, b.runs, load())
	geth := onCore(0, b.command("geth", b.geth, b.importArgs(datadir)...))
	args := roleArgs("master", c, datadir, append([]string{"--", geth.Path}, geth.Args...)...)
	u, err := b.timed(ctx, onCore(1, b.command("master", b.drover, args...)))
	if err := errors.Join(err, b.end(c), b.drop(datadir)); err != nil {
		return err
	}
	f.seconds("plain wall", plain.wall)
	f.seconds("captured wall", u.wall)
	f.add("wall ratio", "", u.wall.Seconds()/plain.wall.Seconds())
	f.add("geth's own wall ratio", "", u.child.Seconds()/plain.wall.Seconds())
	f.seconds("plain geth CPU", plain.cpu)
	f.seconds("captured geth CPU", u.kids)
	f.seconds("drover master CPU", u.cpu)
	return nil
}

// onCore pins a command, which taskset turns into by exec.
func onCore(core int, c harness.Command) harness.Command {
	c.Args = append([]string{"-c", strconv.Itoa(core), c.Path}, c.Args...)
	c.Path = "taskset"
	return c
}

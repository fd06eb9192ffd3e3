package main

import (
	"context"
	"errors"
	"runtime"
)

func newCaptureFigure() *figure {
	f := newFigure("capture", "`drover master -- geth import` ÷ `geth import`, each from process start to exit code 0",
		&target{Series: "wall ratio", Limit: 1.03, Note: "where a spare core is free"})
	f.note("%d cores for geth, drover master and the broker together; the broker is not part of capture, yet takes its share of them", runtime.NumCPU())
	f.note("CPU of the master is that of its process alone, without geth")
	return f
}

// plainImport is what capture and catch-up are compared to.
func (r *round) plainImport(ctx context.Context) error {
	datadir, err := r.fresh("plain")
	if err != nil {
		return err
	}
	quiet()
	before := load()
	r.say("run %d of %d: plain geth import (load %.2f)", r.run+1, r.runs, before)
	if r.plain, err = r.timed(ctx, r.command("geth-import", r.geth, r.importArgs(datadir)...)); err != nil {
		return err
	}
	if r.capture != nil {
		r.capture.Load = append(r.capture.Load, before)
		r.capture.seconds("plain wall", r.plain.wall)
		r.capture.seconds("plain geth CPU", r.plain.cpu)
	}
	if r.catchup != nil {
		r.catchup.Load = append(r.catchup.Load, before)
	}
	return r.drop(datadir)
}

// captured imports below a master. The first run's broker stays, for replicas.
func (r *round) captured(ctx context.Context) error {
	datadir, err := r.fresh("captured")
	if err != nil {
		return err
	}
	c, err := r.newCluster(ctx)
	if err != nil {
		return err
	}
	quiet()
	r.say("run %d of %d: geth import under capture (load %.2f)", r.run+1, r.runs, load())
	brokerBefore := c.cpu()
	u, err := r.timed(ctx, r.masterCommand(c, datadir, r.importArgs(datadir)...))
	if err != nil {
		return err
	}
	if f := r.capture; f != nil {
		brokerAfter := c.cpu()
		f.seconds("captured wall", u.wall)
		f.add("wall ratio", "", u.wall.Seconds()/r.plain.wall.Seconds())
		f.seconds("captured: geth's own wall", u.child)
		f.add("geth's own wall ratio", "", u.child.Seconds()/r.plain.wall.Seconds())
		f.seconds("captured geth CPU", u.kids)
		f.add("geth CPU ratio", "", u.kids.Seconds()/r.plain.cpu.Seconds())
		f.seconds("drover master CPU", u.cpu)
		f.seconds("broker CPU", brokerAfter-brokerBefore)
		f.add("drover master peak resident", "MB", u.peak)
	}
	if err := r.drop(datadir); err != nil {
		return err
	}
	if r.source == nil && (r.catchup != nil || r.apply != nil) {
		r.source = c
		return nil
	}
	return errors.Join(r.end(c))
}

package main

import "context"

func newCatchupFigure() *figure {
	f := newFigure("catchup", "`geth import` ÷ `drover replica --until-synced` of the same blocks, each from process start to exit code 0",
		&target{Series: "times faster", Limit: 4.5, AtLeast: true})
	f.note("both start from a database that holds the genesis block; the broker is on this machine and its CPU is not the replica's")
	return f
}

// replay catches up from the first capture's change log.
func (r *round) replay(ctx context.Context) error {
	datadir, err := r.fresh("replica")
	if err != nil {
		return err
	}
	quiet()
	r.say("run %d of %d: replica --until-synced (load %.2f)", r.run+1, r.runs, load())
	brokerBefore := r.source.cpu()
	u, err := r.timed(ctx, r.replicaCommand(r.source, datadir, "--until-synced"))
	if err != nil {
		return err
	}
	brokerAfter := r.source.cpu()
	f := r.catchup
	f.seconds("geth import wall", r.plain.wall)
	f.seconds("geth import CPU", r.plain.cpu)
	f.seconds("replica wall", u.wall)
	f.seconds("replica CPU", u.cpu)
	f.seconds("broker CPU", brokerAfter-brokerBefore)
	f.add("times faster", "", r.plain.wall.Seconds()/u.wall.Seconds())
	f.add("times less CPU", "", r.plain.cpu.Seconds()/u.cpu.Seconds())
	f.add("replica peak resident", "MB", u.peak)
	return r.drop(datadir)
}

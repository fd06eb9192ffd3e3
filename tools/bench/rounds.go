package main

import (
	"context"
	"errors"
	"fmt"
)

// rounds measures the figures that share databases, in turns: capture, catch-up and apply. A round is one plain import,
// one under capture, one replica's catch-up, one apply loop and its bare counterpart; figures that are not wanted leave
// their parts out. The change log of the first capture is what replicas replay in every round.
func (b *bench) rounds(ctx context.Context) (figures []*figure, err error) {
	r := &round{bench: b}
	if b.wants("capture") {
		r.capture = newCaptureFigure()
		figures = append(figures, r.capture)
	}
	if b.wants("catchup") {
		r.catchup = newCatchupFigure()
		figures = append(figures, r.catchup)
	}
	if b.wants("apply") {
		r.apply = newApplyFigure()
		figures = append(figures, r.apply)
	}
	if len(figures) == 0 {
		return nil, nil
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for r.run = range b.runs {
		if err := r.measure(ctx); err != nil {
			return figures, fmt.Errorf("round %d: %w", r.run+1, err)
		}
	}
	return figures, nil
}

// round is the state that goes from one round to the next.
type round struct {
	*bench
	run                     int
	capture, catchup, apply *figure
	plain                   usage    // of this round's plain import
	source                  *cluster // holds the change log that is replayed
	tape                    *tape    // the same in a file
}

func (r *round) measure(ctx context.Context) error {
	if r.capture != nil || r.catchup != nil {
		if err := r.plainImport(ctx); err != nil {
			return err
		}
	}
	if r.capture != nil || r.source == nil {
		if err := r.captured(ctx); err != nil {
			return err
		}
	}
	if r.catchup != nil {
		if err := r.replay(ctx); err != nil {
			return err
		}
	}
	if r.apply != nil {
		return r.applyBoth(ctx)
	}
	return nil
}

func (r *round) close() error {
	var errs []error
	if r.tape != nil {
		errs = append(errs, r.tape.close())
	}
	if r.source != nil {
		errs = append(errs, r.end(r.source))
	}
	return errors.Join(errs...)
}

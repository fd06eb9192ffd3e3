package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// errReopen asks Run to close geth and open it again: what the stream did to the database cannot be told to a running
// geth (a rewind that the master's crash left half done).
var errReopen = errors.New("geth has to be opened again")

const (
	// ambiguousWait is how long a head whose child is already in the database is held back. Within a reorg geth writes
	// the next head in the time it takes to read a block.
	ambiguousWait = 500 * time.Millisecond
	// intermediateWait is how long a head that is certainly a step of a reorg is held back: only a master that died in
	// the middle of one leaves it standing.
	intermediateWait = 5 * time.Second
)

// chain is what the head tracker does with the embedded geth. All calls come from the applying goroutine.
type chain interface {
	// Header returns a block's number and parent; false when the header is not in the database.
	Header(hash common.Hash) (number uint64, parent common.Hash, ok bool)
	// HasChild says whether the database holds a block on top of this one.
	HasChild(number uint64, hash common.Hash) bool
	// SetCanonical makes the block geth's head, with a reorg if need be, and announces it.
	SetCanonical(hash common.Hash) error
	// SetHead rewinds geth to the height, as debug_setHead does.
	SetHead(number uint64) error
	// SetFinalized moves the finalized label; the zero hash clears it.
	SetFinalized(hash common.Hash) error
}

// headTracker tells the embedded geth about heads, so that it announces the same heads and logs as the master's.
//
// The master writes LastBlock for every block that a reorg passes through, but announces only the last
// (core/blockchain.go: reorg calls writeHeadBlock for all new blocks but the last, deletes stale indexes in
// one batch, then SetCanonical calls writeHeadBlock for the last). Which is which shows in the stream:
//
//	parent is the head before, no child known       final: nothing can follow in the same reorg
//	parent is not the head before, deletes came     final: a reorg to a branch with one block (or back to an ancestor)
//	parent is not the head before, no deletes       a step: the old branch's canonical hash would have been deleted first
//	parent is a step, deletes came in between       final: the deletes end the steps
//	anything else, with a child known               not clear yet: a step if the child's head comes next, else final
//
// A head that is not clear is held back until the next batch that is geth's work on the chain, or for ambiguousWait.
type headTracker struct {
	chain chain
	now   func() time.Time

	last     common.Hash // LastBlock as the stream last set it
	lastStep bool        // last is a step of a reorg, or may be one
	deletes  bool        // a batch of index deletes came since last was written

	pending *pendingHead
	rewind  *common.Hash // where a rewind under way stands
	rewound time.Time    // when its last step came
}

type pendingHead struct {
	hash  common.Hash
	step  bool // certainly a step of a reorg
	until time.Time
}

func newHeadTracker(c chain, last common.Hash) *headTracker {
	return &headTracker{chain: c, now: time.Now, last: last}
}

// before is called before the change is written to the database.
func (t *headTracker) before(c *change) error {
	if t.rewind != nil && (c.rewind || c.substantive() && !c.stepsBack()) {
		if err := t.finishRewind(c.rewind); err != nil {
			return err
		}
	}
	if t.pending == nil || !c.substantive() {
		return nil
	}
	if c.headBlock != nil && c.canonical != nil {
		_, parent, ok := t.chain.Header(*c.headBlock)
		if !ok {
			return fmt.Errorf("%w: head %s is in the stream, its header is not in the database", ErrDiverged, c.headBlock)
		}
		if parent == t.pending.hash || t.pending.step {
			t.pending = nil // a step on the way to this head
			return nil
		}
	}
	return t.flush()
}

// stepsBack says that the change is a step of geth's SetHead: the markers move, the canonical index does not.
func (c *change) stepsBack() bool { return c.headBlock != nil && c.canonical == nil && !c.blockData }

// after is called when the change is in the database.
func (t *headTracker) after(c *change) error {
	if c.finalized != nil {
		if err := t.chain.SetFinalized(*c.finalized); err != nil {
			return err
		}
	}
	switch {
	case c.headBlock == nil:
		t.deletes = t.deletes || c.dropsCanonical || c.dropsTxLookup
		return nil
	case c.stepsBack():
		head := *c.headBlock
		t.rewind, t.rewound = &head, t.now()
		t.last, t.lastStep, t.deletes = head, false, false
		return nil
	}
	return t.newHead(*c.headBlock)
}

func (t *headTracker) newHead(head common.Hash) error {
	if head == t.last && !t.lastStep {
		t.deletes = false
		return nil
	}
	number, parent, ok := t.chain.Header(head)
	if !ok {
		return fmt.Errorf("%w: head %s is in the stream, its header is not in the database", ErrDiverged, head)
	}
	extends, deletes := parent == t.last, t.deletes
	step := !extends && !deletes
	clear := !step && (!extends || t.lastStep && deletes || !t.chain.HasChild(number, head))
	t.last, t.lastStep, t.deletes = head, !clear, false
	if clear {
		return t.chain.SetCanonical(head)
	}
	wait := ambiguousWait
	if step {
		wait = intermediateWait
	}
	t.pending = &pendingHead{hash: head, step: step, until: t.now().Add(wait)}
	return nil
}

// flush announces the head that was held back.
func (t *headTracker) flush() error {
	if t.pending == nil {
		return nil
	}
	head := t.pending.hash
	t.pending, t.lastStep = nil, false
	return t.chain.SetCanonical(head)
}

// finishRewind moves geth to where the master's SetHead ended. It has to happen before the deletes are written: geth
// walks down from its own head and needs the headers.
func (t *headTracker) finishRewind(deletes bool) error {
	target := *t.rewind
	t.rewind = nil
	number, _, ok := t.chain.Header(target)
	if !ok {
		return fmt.Errorf("%w: rewind to %s is in the stream, its header is not in the database", ErrDiverged, target)
	}
	if !deletes {
		return errReopen
	}
	return t.chain.SetHead(number)
}

// deadline is when idle has to be called if nothing comes; false when there is no need.
func (t *headTracker) deadline() (time.Time, bool) {
	switch {
	case t.pending != nil:
		return t.pending.until, true
	case t.rewind != nil:
		return t.rewound.Add(intermediateWait), true
	}
	return time.Time{}, false
}

// idle is called when deadline has passed without a batch.
func (t *headTracker) idle() error {
	until, ok := t.deadline()
	if !ok || t.now().Before(until) {
		return nil
	}
	if t.pending != nil {
		return t.flush()
	}
	return t.finishRewind(false)
}

package replica

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// toyChain is a chain of blocks named by one byte; it records what the tracker does.
type toyChain struct {
	parents map[common.Hash]common.Hash
	numbers map[common.Hash]uint64
	did     []string
}

func newToyChain(branches ...string) *toyChain {
	c := &toyChain{parents: map[common.Hash]common.Hash{}, numbers: map[common.Hash]uint64{}}
	for _, b := range branches {
		for i := range b {
			h := hashOf(b[i])
			if _, ok := c.numbers[h]; ok {
				continue
			}
			if i > 0 {
				c.parents[h], c.numbers[h] = hashOf(b[i-1]), c.numbers[hashOf(b[i-1])]+1
			} else {
				c.numbers[h] = 0
			}
		}
	}
	return c
}

func (c *toyChain) Header(h common.Hash) (uint64, common.Hash, bool) {
	n, ok := c.numbers[h]
	return n, c.parents[h], ok
}

func (c *toyChain) HasChild(_ uint64, h common.Hash) bool {
	for _, parent := range c.parents {
		if parent == h {
			return true
		}
	}
	return false
}

func (c *toyChain) SetCanonical(h common.Hash) error {
	c.did = append(c.did, string(h[:1]))
	return nil
}

func (c *toyChain) SetHead(n uint64) error {
	c.did = append(c.did, fmt.Sprintf("rewind %d", n))
	return nil
}

func (c *toyChain) SetFinalized(h common.Hash) error {
	c.did = append(c.did, "final "+string(h[:1]))
	return nil
}

// stream is a sequence of batches: a letter makes that block the head, "-" deletes indexes, "+" is block data,
// "." is a write of another goroutine, "<x" is a step of a rewind, "!" deletes blocks, "~" is a long silence.
func playStream(t *testing.T, c *toyChain, last byte, stream string) error {
	t.Helper()
	tracker := newHeadTracker(c, hashOf(last))
	now := time.Now()
	tracker.now = func() time.Time { return now }
	for i := 0; i < len(stream); i++ {
		var ch change
		switch b := stream[i]; b {
		case '-':
			ch.dropsCanonical = true
		case '+':
			ch.blockData = true
		case '.':
		case '!':
			ch.rewind = true
		case '<':
			i++
			h := hashOf(stream[i])
			ch.headBlock = &h
		case '~':
			now = now.Add(time.Minute)
			if err := tracker.idle(); err != nil {
				return err
			}
			continue
		default:
			h, n := hashOf(b), uint64(1)
			ch.headBlock, ch.canonical = &h, &n
		}
		if err := tracker.before(&ch); err != nil {
			return err
		}
		if err := tracker.after(&ch); err != nil {
			return err
		}
	}
	return nil
}

func TestOnlyTheLastHeadOfAReorgIsAnnounced(t *testing.T) {
	for _, test := range []struct {
		name     string
		branches []string // all blocks in the database
		last     byte     // the head before
		stream   string
		want     []string
	}{
		{"next block", []string{"ab"}, 'a', "b", []string{"b"}},
		{"sibling", []string{"ab", "ac"}, 'b', "-c", []string{"c"}},
		{"A, B, A", []string{"ab", "ac"}, 'b', "-c-b", []string{"c", "b"}},
		{"back to an ancestor", []string{"abcd"}, 'd', "-b", []string{"b"}},
		{"two blocks of another branch", []string{"ab", "acd"}, 'b', "c-d", []string{"d"}},
		{"three, and nothing to delete", []string{"ab", "acde"}, 'b', "cde", []string{"e"}},
		{"two, the old branch longer", []string{"abxyz", "acd"}, 'z', "c-d", []string{"d"}},
		{"several at once on top", []string{"abcd"}, 'a', "bcd", []string{"d"}},
		{"writes of other goroutines in between", []string{"ab", "acde"}, 'b', ".c..d.-.e", []string{"e"}},
		{"a head whose child is known, then a new block", []string{"abc"}, 'a', "b+", []string{"b"}},
		{"a head whose child is known, then silence", []string{"abc"}, 'a', "b~", []string{"b"}},
		{"a head whose child is known, then a sibling", []string{"abc", "ad"}, 'a', "b-d", []string{"b", "d"}},
		{"the master died within a reorg", []string{"ab", "acde"}, 'b', "cd~", []string{"d"}},
		{"the master died within a reorg and went on from there", []string{"ab", "acd"}, 'b', "c+-", []string{"c"}},
		{"the same head again", []string{"ab"}, 'b', "b", nil},
		{"rewind", []string{"abcd"}, 'd', "<c<b!", []string{"rewind 1"}},
		{"rewind after a head that was not clear", []string{"abc"}, 'a', "b<a!", []string{"b", "rewind 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newToyChain(test.branches...)
			if err := playStream(t, c, test.last, test.stream); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(c.did, test.want) {
				t.Errorf("did %q, want %q", c.did, test.want)
			}
		})
	}
}

func TestARewindWithoutItsDeletesOpensGethAgain(t *testing.T) {
	for _, stream := range []string{"<c<b~", "<c<b+"} {
		if err := playStream(t, newToyChain("abcd"), 'd', stream); !errors.Is(err, errReopen) {
			t.Errorf("%s: %v", stream, err)
		}
	}
}

func TestAHeadWithoutItsHeaderIsDivergence(t *testing.T) {
	if err := playStream(t, newToyChain("ab"), 'a', "x"); !errors.Is(err, ErrDiverged) {
		t.Errorf("%v", err)
	}
}

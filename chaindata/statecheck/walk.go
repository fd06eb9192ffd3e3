// Package statecheck walks the state of a block in a hash-scheme database and finds out whether it is whole.
//
// In the hash scheme a trie node is kept under the keccak-256 of its bytes, and a contract's code likewise. So whoever
// follows every reference from a state root and hashes what he finds has compared the whole state with the 32 bytes that
// the block's header commits to: nothing can be missing, nor differ in a bit.
package statecheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"golang.org/x/sync/errgroup"
)

// ErrState means: the state is not whole. The concrete error is a *NodeError.
var ErrState = errors.New("the state is not whole")

// NodeError names a node or code that is missing or not what its key says.
type NodeError struct {
	What string // account trie node, storage trie node, code
	Hash [32]byte
	Path []byte // of the node, one nibble a byte, or of the account that refers to it
	Why  string
}

func (e *NodeError) Error() string {
	path := make([]byte, len(e.Path))
	for i, nibble := range e.Path {
		path[i] = "0123456789abcdef"[nibble&15]
	}
	return fmt.Sprintf("the state is not whole: %s %x at path %q %s", e.What, e.Hash, path, e.Why)
}

// Is makes errors.Is(err, ErrState) true.
func (e *NodeError) Is(target error) bool { return target == ErrState }

// Get returns the value of a key, nil when it has none. It is called from several goroutines.
type Get func(key []byte) ([]byte, error)

// Options tune Walk.
type Options struct {
	Workers  int                // default 4
	Fraction float64            // of the subtrees below the first levels, 0 < Fraction < 1; anything else: all
	Seed     uint64             // which ones
	Progress func(nodes uint64) // called now and then, from several goroutines; may be nil
}

// Counts is what a walk found.
type Counts struct {
	Nodes, Accounts, Slots, Codes uint64
	Skipped                       uint64 // subtrees left out by Fraction
}

// sampleDepth is the number of nibbles below which a walk is sampled: 4096 subtrees in a large trie, and a small one is
// walked whole.
const sampleDepth = 3

// seenLimit bounds how many storage roots and codes are remembered so as not to be walked twice; many contracts share them.
const seenLimit = 1 << 20

// Walk visits the state below root. The error is a *NodeError, the reader's or the context's.
func Walk(ctx context.Context, get Get, root [32]byte, opts Options) (Counts, error) {
	if opts.Workers <= 0 {
		opts.Workers = 4
	}
	w := &walker{get: get, opts: opts, limit: math.MaxUint64}
	if opts.Fraction > 0 && opts.Fraction < 1 {
		w.limit = uint64(opts.Fraction * (1 << 53))
	}
	w.group, w.ctx = errgroup.WithContext(ctx)
	w.group.SetLimit(opts.Workers)
	w.group.Go(func() error {
		if root == types.EmptyRootHash {
			return nil
		}
		return w.node(root[:], nil, false)
	})
	err := w.group.Wait()
	return Counts{
		Nodes: w.nodes.Load(), Accounts: w.accounts.Load(), Slots: w.slots.Load(), Codes: w.codes.Load(), Skipped: w.skipped.Load(),
	}, err
}

type walker struct {
	get   Get
	opts  Options
	limit uint64 // of sampled's 53 bits
	ctx   context.Context
	group *errgroup.Group

	nodes, accounts, slots, codes, skipped atomic.Uint64

	mu   sync.Mutex
	seen map[[33]byte]struct{}
}

// first tells whether a storage root or code was not met before, as far as is remembered.
func (w *walker) first(kind byte, hash []byte) bool {
	key := [33]byte{kind}
	copy(key[1:], hash)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.seen[key]; ok {
		return false
	}
	if w.seen == nil {
		w.seen = make(map[[33]byte]struct{})
	}
	if len(w.seen) < seenLimit {
		w.seen[key] = struct{}{}
	}
	return true
}

// sampled decides about the subtree at a path of at least sampleDepth nibbles.
func (w *walker) sampled(path []byte) bool {
	if w.limit == math.MaxUint64 {
		return true
	}
	h := w.opts.Seed ^ 0xcbf29ce484222325
	for _, nibble := range path {
		h = (h ^ uint64(nibble)) * 0x100000001b3
	}
	h ^= h >> 29 // FNV's low bits carry the most; mixed once more they may be compared as a number
	h *= 0xbf58476d1ce4e5b9
	return h>>11 < w.limit
}

// node visits the node kept under hash, and all below it.
func (w *walker) node(hash, path []byte, storage bool) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	blob, err := w.load(hash, hash, path, storage)
	if err != nil {
		return err
	}
	if n := w.nodes.Add(1); n%1024 == 0 && w.opts.Progress != nil {
		w.opts.Progress(n)
	}
	if err := w.decoded(blob, path, storage); err != nil {
		if _, ok := errors.AsType[*NodeError](err); ok || w.ctx.Err() != nil {
			return err
		}
		return w.bad(hash, path, storage, "cannot be decoded: "+err.Error())
	}
	return nil
}

// load reads a value and compares it with its hash.
func (w *walker) load(key, hash, path []byte, storage bool) ([]byte, error) {
	blob, err := w.get(key)
	switch {
	case err != nil:
		return nil, w.bad(hash, path, storage, "cannot be read: "+err.Error())
	case blob == nil:
		return nil, w.bad(hash, path, storage, "is missing")
	case !bytes.Equal(crypto.Keccak256(blob), hash):
		return nil, w.bad(hash, path, storage, "has other bytes than its hash says")
	}
	return blob, nil
}

func (w *walker) bad(hash, path []byte, storage bool, why string) error {
	what := "account trie node"
	if storage {
		what = "storage trie node"
	}
	return &NodeError{What: what, Hash: common.BytesToHash(hash), Path: bytes.Clone(path), Why: why}
}

// decoded visits what an encoded node refers to: a branch has 17 items, an extension or a leaf two.
func (w *walker) decoded(blob, path []byte, storage bool) error {
	items, _, err := rlp.SplitList(blob)
	if err != nil {
		return err
	}
	count, err := rlp.CountValues(items)
	if err != nil {
		return err
	}
	switch count {
	case 17:
		for i := range 16 {
			var item []byte
			if item, items, err = splitItem(items); err != nil {
				return err
			}
			if err := w.child(item, append(bytes.Clone(path), byte(i)), len(path), storage); err != nil {
				return err
			}
		}
		return nil
	case 2:
		compact, rest, err := rlp.SplitString(items)
		if err != nil {
			return err
		}
		nibbles, leaf, err := expand(compact)
		if err != nil {
			return err
		}
		below := append(bytes.Clone(path), nibbles...)
		if !leaf {
			return w.child(rest, below, len(path), storage)
		}
		value, _, err := rlp.SplitString(rest)
		if err != nil {
			return err
		}
		if len(below) != 64 {
			return fmt.Errorf("a leaf at depth %d", len(below))
		}
		if storage {
			w.slots.Add(1)
			return nil
		}
		return w.account(value, below)
	}
	return fmt.Errorf("%d items", count)
}

// splitItem cuts the first item off, with its header.
func splitItem(items []byte) (item, rest []byte, err error) {
	_, _, rest, err = rlp.Split(items)
	if err != nil {
		return nil, nil, err
	}
	return items[:len(items)-len(rest)], rest, nil
}

// child visits a reference: nothing, a hash, or a node of less than 32 bytes in place.
func (w *walker) child(item, path []byte, above int, storage bool) error {
	kind, content, _, err := rlp.Split(item)
	switch {
	case err != nil:
		return err
	case kind == rlp.List:
		return w.decoded(item, path, storage)
	case len(content) == 0:
		return nil
	case len(content) != 32:
		return fmt.Errorf("a reference of %d bytes", len(content))
	}
	if above < sampleDepth && len(path) >= sampleDepth && !w.sampled(path) {
		w.skipped.Add(1)
		return nil
	}
	// In a goroutine of its own if one is free, else here: no depth of recursion can wait for another.
	if !w.group.TryGo(func() error { return w.node(content, path, storage) }) {
		return w.node(content, path, storage)
	}
	return nil
}

// account visits an account's storage and code. RLP of nonce, balance, storage root, code hash.
func (w *walker) account(value, path []byte) error {
	w.accounts.Add(1)
	var a types.StateAccount
	if err := rlp.DecodeBytes(value, &a); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if code := a.CodeHash; !bytes.Equal(code, types.EmptyCodeHash[:]) && w.first('c', code) {
		if err := w.code(code, path); err != nil {
			return err
		}
	}
	if a.Root != types.EmptyRootHash && w.first('s', a.Root[:]) {
		return w.child(append([]byte{0x80 + 32}, a.Root[:]...), nil, 0, true)
	}
	return nil
}

func (w *walker) code(hash, path []byte) error {
	blob, err := w.get(append([]byte("c"), hash...))
	if err == nil && blob == nil {
		blob, err = w.get(hash) // where geth kept code until v1.9.21
	}
	why := ""
	switch {
	case err != nil:
		why = "cannot be read: " + err.Error()
	case blob == nil:
		why = "is missing"
	case !bytes.Equal(crypto.Keccak256(blob), hash):
		why = "has other bytes than its hash says"
	default:
		w.codes.Add(1)
		return nil
	}
	return &NodeError{What: "code", Hash: common.BytesToHash(hash), Path: path, Why: why}
}

// expand turns a compact key into nibbles (hex prefix encoding, yellow paper appendix C).
func expand(compact []byte) (nibbles []byte, leaf bool, err error) {
	if len(compact) == 0 || compact[0]>>4 > 3 {
		return nil, false, errors.New("a key that is not hex-prefix encoded")
	}
	leaf = compact[0]&0x20 != 0
	if compact[0]&0x10 != 0 {
		nibbles = append(nibbles, compact[0]&15)
	}
	for _, c := range compact[1:] {
		nibbles = append(nibbles, c>>4, c&15)
	}
	return nibbles, leaf, nil
}

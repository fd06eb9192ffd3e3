package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
)

// sightings notes when each head was seen first.
type sightings struct {
	mu    sync.Mutex
	times map[common.Hash]time.Time
	err   error
}

func (s *sightings) note(hash common.Hash, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil {
		s.times = make(map[common.Hash]time.Time)
	}
	if _, ok := s.times[hash]; !ok {
		s.times[hash] = at
	}
}

func (s *sightings) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sightings) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *sightings) at(hash common.Hash) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.times[hash]
	return at, ok
}

// journalHeads sees heads in the journals of a live chaindata.
type journalHeads struct {
	seen     sightings
	follower *chaindata.Follower
	done     chan struct{}
}

// followHeads begins behind what the database holds now.
func followHeads(dir, spool string) (*journalHeads, error) {
	state, err := chaindata.Inspect(dir)
	if err != nil {
		return nil, err
	}
	follower, err := chaindata.NewFollower(chaindata.FollowOptions{Dir: dir, SpoolDir: spool, From: state.Sequence + 1})
	if err != nil {
		return nil, err
	}
	j := &journalHeads{follower: follower, done: make(chan struct{})}
	go j.run()
	return j, nil
}

func (j *journalHeads) run() {
	defer close(j.done)
	for {
		batch, err := j.follower.Next(context.Background())
		now := time.Now()
		if err != nil {
			if !errors.Is(err, chaindata.ErrClosed) {
				j.seen.fail(err)
			}
			return
		}
		hash, ok, err := headOf(batch.Data)
		if err != nil {
			j.seen.fail(err)
			return
		}
		if ok {
			j.seen.note(hash, now)
		}
		j.follower.Published(batch.Last())
	}
}

func (j *journalHeads) close() error {
	err := j.follower.Close()
	<-j.done
	return err
}

// headOf is the head that a journal record sets.
func headOf(record []byte) (hash common.Hash, ok bool, err error) {
	batch, err := chaindata.ParseBatch(record)
	if err != nil {
		return hash, false, err
	}
	for op := range batch.Ops() {
		if !op.Delete && string(op.Key) == "LastBlock" {
			hash, ok = common.BytesToHash(op.Value), true
		}
	}
	return hash, ok, nil
}

// socketHeads sees heads in a newHeads subscription.
type socketHeads struct {
	seen   sightings
	socket *harness.WebSocket
	done   chan struct{}
}

func subscribeHeads(ctx context.Context, url string) (*socketHeads, error) {
	socket, err := harness.DialWebSocket(ctx, url)
	if err != nil {
		return nil, err
	}
	var id string
	if err := harness.Ask(ctx, socket, &id, "eth_subscribe", "newHeads"); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	s := &socketHeads{socket: socket, done: make(chan struct{})}
	go s.run()
	return s, nil
}

func (s *socketHeads) run() {
	defer close(s.done)
	for {
		message, err := s.socket.Receive()
		now := time.Now()
		if err != nil {
			s.seen.fail(err)
			return
		}
		var notification struct {
			Params struct {
				Result struct{ Hash common.Hash }
			}
		}
		if err := json.Unmarshal(message, &notification); err != nil {
			s.seen.fail(err)
			return
		}
		s.seen.note(notification.Params.Result.Hash, now)
	}
}

func (s *socketHeads) close() {
	s.socket.Close()
	<-s.done
}

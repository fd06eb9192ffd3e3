package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Subscription records the notifications of one eth_subscribe, in order, on a
// connection of its own.
type Subscription struct {
	socket *WebSocket
	id     string
	done   chan struct{}

	lock   sync.Mutex
	events []string
	err    error
}

// Subscribe begins a subscription, such as to "newHeads" or "logs".
func Subscribe(ctx context.Context, url string, params ...any) (*Subscription, error) {
	socket, err := DialWebSocket(ctx, url)
	if err != nil {
		return nil, err
	}
	s := &Subscription{socket: socket, done: make(chan struct{})}
	if err := Ask(ctx, socket, &s.id, "eth_subscribe", params...); err != nil {
		socket.Close()
		return nil, err
	}
	go s.record()
	return s, nil
}

func (s *Subscription) record() {
	defer close(s.done)
	for {
		message, err := s.socket.Receive()
		if err != nil {
			s.fail(err)
			return
		}
		var notification struct {
			Method string
			Params struct {
				Subscription string
				Result       json.RawMessage
			}
		}
		if err := json.Unmarshal(message, &notification); err != nil {
			s.fail(err)
			return
		}
		if notification.Method != "eth_subscription" || notification.Params.Subscription != s.id {
			s.fail(fmt.Errorf("unexpected message %.200s", message))
			return
		}
		s.lock.Lock()
		s.events = append(s.events, string(notification.Params.Result))
		s.lock.Unlock()
	}
}

func (s *Subscription) fail(err error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.err = err
}

// Events are the results received so far, each as it came.
func (s *Subscription) Events() ([]string, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	return append([]string(nil), s.events...), s.err
}

// Close ends the subscription.
func (s *Subscription) Close() error {
	err := s.socket.Close()
	<-s.done
	return err
}

// ErrEventsDiffer is returned by SameEvents.
var ErrEventsDiffer = errors.New("the subscriptions' events differ")

// SameEvents says whether both have received the same events in the same order.
//
// Logs that a reorg removes and logs that it adds are compared as two sequences:
// geth queues them in two channels and takes from whichever has one, so the way
// they interleave differs from one run of geth to the next (eth/filters,
// EventSystem.eventLoop).
func SameEvents(left, right *Subscription) error {
	a, errA := left.Events()
	b, errB := right.Events()
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	removedA, addedA := split(a)
	removedB, addedB := split(b)
	return errors.Join(same(removedA, removedB), same(addedA, addedB))
}

func split(events []string) (removed, others []string) {
	for _, event := range events {
		if strings.Contains(event, RemovedLog) {
			removed = append(removed, event)
		} else {
			others = append(others, event)
		}
	}
	return removed, others
}

// RemovedLog is part of the event of a log that a reorg took away.
const RemovedLog = `"removed":true`

func same(a, b []string) error {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Errorf("%w: event %d is\n  %.600s\nand\n  %.600s", ErrEventsDiffer, i, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		longer := a
		if len(b) > len(a) {
			longer = b
		}
		return fmt.Errorf("%w: %d and %d events; the first that one side lacks is %.600s", ErrEventsDiffer, len(a), len(b), longer[min(len(a), len(b))])
	}
	return nil
}

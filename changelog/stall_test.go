package changelog_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
)

// relay stands between client and broker. While stalled it accepts connections and passes nothing on, as a broker
// under SIGSTOP does.
type relay struct {
	mu      sync.Mutex
	passing chan struct{} // closed while bytes pass
	held    int           // reads that were held back
}

func newRelay() *relay {
	r := &relay{passing: make(chan struct{})}
	close(r.passing)
	return r
}

func (r *relay) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passing = make(chan struct{})
}

func (r *relay) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.passing)
}

// dial connects through the relay.
func (r *relay) dial(ctx context.Context, network, address string) (net.Conn, error) {
	far, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	near, client := net.Pipe()
	go r.copy(far, near)
	go r.copy(near, far)
	return client, nil
}

func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		passing := r.passing
		select {
		case <-passing:
		default:
			r.held++
		}
		r.mu.Unlock()
		<-passing
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A broker that accepts connections and answers nothing, for longer than every time-out, is an outage: it must not end
// a publisher with the word that the topic is absent.
func TestABrokerThatStallsIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := startBroker(t, broker.Options{})
	r := newRelay()
	l, err := changelog.Open(deadline(t), changelog.Options{Brokers: []string{b.Addr()}, Cluster: testCluster, Dial: r.dial})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := l.Ensure(deadline(t), changelog.TopicSpec{}); err != nil {
		t.Fatal(err)
	}
	p := l.NewPublisher(changelog.PublisherOptions{})
	frames, last := stream(1, 1, 20, 100, 0)
	if _, err := p.Publish(deadline(t), frames[:1]); err != nil {
		t.Fatal(err)
	}
	r.stall()
	const stall = 25 * time.Second // a produce request is given 10 s, an absent topic 3 s
	timer := time.AfterFunc(stall, r.resume)
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := p.Publish(ctx, frames[1:]); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if held == 0 || p.State().Retries == 0 {
		t.Errorf("%d reads held back, %d retries: the broker never stalled", held, p.State().Retries)
	}
	follow(t, openLog(t, b.Addr()), at(1, 0), 0, last)
}

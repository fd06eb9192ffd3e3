package replica

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
)

// watch records what a node announces.
type watch struct {
	mu    sync.Mutex
	heads []string
	logs  []string
}

func watchNode(t testing.TB, client *rpc.Client) *watch {
	t.Helper()
	w := new(watch)
	heads, logs := make(chan json.RawMessage, 100), make(chan json.RawMessage, 100)
	for kind, c := range map[string]chan json.RawMessage{"newHeads": heads, "logs": logs} {
		args := []any{kind}
		if kind == "logs" {
			args = append(args, map[string]any{})
		}
		sub, err := client.EthSubscribe(context.Background(), c, args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sub.Unsubscribe)
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case h := <-heads:
				w.mu.Lock()
				w.heads = append(w.heads, string(h))
				w.mu.Unlock()
			case l := <-logs:
				w.mu.Lock()
				w.logs = append(w.logs, string(l))
				w.mu.Unlock()
			case <-done:
				return
			}
		}
	}()
	return w
}

func (w *watch) seen() (heads, logs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.heads...), append([]string{}, w.logs...)
}

// pair is a master and a replica that follows it.
type pair struct {
	*forge
	m   *master
	r   *running
	ws  *rpc.Client
	dir string

	masters, replicas *watch
}

func newPair(t testing.TB, change func(*Options)) *pair {
	t.Helper()
	f := newForge(t)
	m := newMaster(t, f.file())
	m.start()
	dir := t.TempDir()
	m.copyTo(dir)
	r := startReplica(t, m.log, dir, change)
	r.ready()
	p := &pair{forge: f, m: m, r: r, ws: r.dialWS(), dir: dir}
	p.masters, p.replicas = watchNode(t, m.rpc), watchNode(t, p.ws)
	return p
}

// agree waits until the replica answers as the master does.
func (p *pair) agree(what string) {
	p.t.Helper()
	for _, call := range []struct {
		method string
		args   []any
	}{
		{"eth_getBlockByNumber", []any{"latest", true}},
		{"eth_getBlockByNumber", []any{"finalized", false}},
		{"eth_getBlockByNumber", []any{"safe", false}},
		{"eth_getLogs", []any{map[string]any{"fromBlock": "earliest", "toBlock": "latest"}}},
		{"eth_getBalance", []any{p.from, "latest"}},
		{"eth_getTransactionCount", []any{p.from, "latest"}},
	} {
		eventually(p.t, 20*time.Second, fmt.Sprintf("%s: %s %v", what, call.method, call.args), func() error {
			var want, got json.RawMessage
			errWant, errGot := p.m.rpc.Call(&want, call.method, call.args...), p.ws.Call(&got, call.method, call.args...)
			if fmt.Sprint(errWant) != fmt.Sprint(errGot) {
				return fmt.Errorf("master %v, replica %v", errWant, errGot)
			}
			if !bytes.Equal(want, got) {
				return fmt.Errorf("master %.300s\nreplica %.300s (%v)", want, got, p.r.Status(context.Background()).Reasons)
			}
			return nil
		})
	}
}

// sameEvents waits until both have announced the same heads and logs, in the same order.
func (p *pair) sameEvents(what string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, what+": announcements", func() error {
		wantHeads, wantLogs := p.masters.seen()
		gotHeads, gotLogs := p.replicas.seen()
		if err := sameLines(wantHeads, gotHeads); err != nil {
			return fmt.Errorf("newHeads: %w", err)
		}
		if err := sameLines(wantLogs, gotLogs); err != nil {
			return fmt.Errorf("logs: %w", err)
		}
		return nil
	})
}

func sameLines(want, got []string) error {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Errorf("the replica announced %d, the master %d; the first too many: %.400s", len(got), len(want), got[i])
		case i >= len(got):
			return fmt.Errorf("the replica announced %d, the master %d; the first missing: %.400s", len(got), len(want), want[i])
		case want[i] != got[i]:
			return fmt.Errorf("number %d: master %.400s\nreplica %.400s", i, want[i], got[i])
		}
	}
	return nil
}

// stop ends both and compares their databases.
func (p *pair) stop() {
	p.t.Helper()
	p.m.stop()
	p.r.reaches(p.m.last)
	p.r.stop()
	sameDatabases(p.t, p.m.datadir, p.dir)
}

func TestReorgsReachSubscribersAsOnTheMaster(t *testing.T) {
	p := newPair(t, nil)
	m := p.m
	step := func(what string, do func()) {
		t.Helper()
		do()
		p.agree(what)
		p.sameEvents(what)
	}

	a := p.extend(p.root, 12, 5)
	step("growing", func() { m.grow(a...) })

	siblings := []*types.Block{p.extend(a[10], 1, 4)[0], p.extend(a[10], 1, 0)[0]}
	step("siblings of equal height", func() { m.grow(siblings...) })
	step("A-B-A", func() { m.head(a[11]); m.head(siblings[0]); m.head(a[11]) })

	b := p.extend(a[11], 6, 3)
	step("several blocks at once", func() { m.payload(b...); m.head(b[5]) })

	c := p.extend(a[11], 3, 2)
	step("to a shorter branch", func() { m.payload(c...); m.head(c[2]) })
	step("back to the longer one", func() { m.head(b[5]) })
	step("back to an ancestor", func() { m.head(b[2]) })
	step("forward again", func() { m.head(b[5]) })

	empty := p.extend(b[4], 2, 0)
	step("to a longer branch without transactions", func() { m.payload(empty...); m.head(empty[1]) })
	empty2 := p.extend(b[4], 4, 0)
	step("from one without transactions to a longer one", func() { m.payload(empty2...); m.head(empty2[3]) })
	step("back to where transactions are", func() { m.head(b[5]) })

	deep := p.extend(b[5], 64, 2)
	step("64 blocks", func() { m.grow(deep...) })
	other := p.extend(b[5], 66, 3)
	step("a reorg of 64 blocks", func() { m.payload(other...); m.head(other[65]) })
	step("and back", func() { m.head(deep[63]) })

	step("safe and finalized", func() { m.forkchoice(deep[63], deep[40].Hash(), deep[20].Hash()) })
	more := p.extend(deep[63], 4, 2)
	step("finality moves with heads", func() {
		for i, h := range more {
			m.payload(h)
			m.forkchoice(h, deep[41+i].Hash(), deep[21+i].Hash())
		}
	})
	p.stop()
}

func TestRewindsFollowTheMasters(t *testing.T) {
	p := newPair(t, nil)
	m := p.m
	a := p.extend(p.root, 20, 3)
	m.grow(a...)
	side := p.extend(a[16], 3, 1)
	m.payload(side...)
	m.forkchoice(a[19], a[10].Hash(), a[10].Hash())
	p.agree("growing")
	m.setHead(14)
	p.agree("rewound")
	b := p.extend(a[13], 8, 2)
	m.grow(b...)
	p.agree("grown on another branch")
	m.setHead(5)
	p.agree("rewound below the finalized block")
	m.grow(p.extend(a[4], 3, 1)...)
	p.agree("grown again")
	p.sameEvents("rewinds")
	p.stop()
}

func TestOpenGatesAndRefusals(t *testing.T) {
	p := newPair(t, nil)
	p.m.grow(p.extend(p.root, 3, 2)...)
	p.agree("growing")
	for method, args := range map[string][]any{
		"eth_sendRawTransaction": {"0x00"},
		"debug_setHead":          {"0x0"},
		"debug_chaindbCompact":   {},
	} {
		err := p.ws.Call(nil, method, args...)
		if e, ok := err.(rpc.Error); !ok || e.ErrorCode() != -32004 {
			t.Errorf("%s: %v", method, err)
		}
	}
	if err := p.ws.Call(nil, "admin_nodeInfo"); err == nil {
		t.Error("admin_nodeInfo was answered")
	}
	var version string
	if err := p.ws.Call(&version, "web3_clientVersion"); err != nil || version == "" {
		t.Errorf("web3_clientVersion: %q %v", version, err)
	}
	p.stop()
}

package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/e2e/harness"
)

// Node is a running master or replica, or a geth alone.
type Node struct {
	*harness.Process
	harness.Endpoints
	Engine    *harness.Engine // of a geth that is driven by the Engine API
	AdminPort int             // 0 for a geth alone
}

// End ends the node by SIGTERM, which must end it well.
func (n *Node) End(t *testing.T) {
	t.Helper()
	code, err := n.Stop(2 * time.Minute)
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d after SIGTERM, %v\n%s", n.Name, code, err, n.Tail(20))
	}
}

// Geth is the process of the master's geth, its only child.
func (n *Node) Geth(t *testing.T) (pid int) {
	t.Helper()
	children := Must(n.Children())(t)
	if len(children) != 1 {
		t.Fatalf("the master (running: %v) has the children %v:\n%s", n.Running(), children, n.Tail(10))
	}
	return children[0]
}

// Feed makes each block geth's head in turn.
func (n *Node) Feed(t *testing.T, blocks ...*types.Block) {
	t.Helper()
	for _, block := range blocks {
		if err := n.FeedOne(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	}
}

// FeedOne makes a block geth's head.
func (n *Node) FeedOne(ctx context.Context, block *types.Block) error {
	if err := n.Engine.Insert(ctx, block); err != nil {
		return err
	}
	return n.Engine.Head(ctx, block.Hash(), common.Hash{}, common.Hash{})
}

// Height is the number of the node's head.
func (n *Node) Height(ctx context.Context) (uint64, error) {
	var height hexutil.Uint64
	err := harness.Ask(ctx, n.HTTP(), &height, "eth_blockNumber")
	return uint64(height), err
}

// Get asks the admin port.
func (n *Node) Get(ctx context.Context, path string) (body []byte, code int, err error) {
	if !n.Running() {
		return nil, 0, fmt.Errorf("%s has ended:\n%s", n.Name, n.Tail(10))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+Localhost(n.AdminPort)+path, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return body, response.StatusCode, err
}

// Status is the answer of /status.
func (n *Node) Status(ctx context.Context) (s admin.Status, err error) {
	body, code, err := n.Get(ctx, "/status")
	if err != nil {
		return s, err
	}
	if code != http.StatusOK {
		return s, fmt.Errorf("/status: HTTP %d", code)
	}
	return s, json.Unmarshal(body, &s)
}

// Ready is nil when /readyz answers 200.
func (n *Node) Ready(ctx context.Context) error {
	body, code, err := n.Get(ctx, "/readyz")
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("/readyz: HTTP %d: %s", code, body)
	}
	return nil
}

// WaitReady waits until the node is ready.
func (n *Node) WaitReady(t *testing.T, limit time.Duration) { t.Helper(); Until(t, limit, n.Ready) }

// SameHead waits until the replica's RPC shows the master's head.
func SameHead(t *testing.T, limit time.Duration, master, replica *Node) {
	t.Helper()
	Until(t, limit, func(ctx context.Context) error {
		var a, b struct{ Hash, Number string }
		if err := harness.Ask(ctx, master.HTTP(), &a, "eth_getBlockByNumber", "latest", false); err != nil {
			return err
		}
		if err := harness.Ask(ctx, replica.HTTP(), &b, "eth_getBlockByNumber", "latest", false); err != nil {
			if !replica.Running() {
				return fmt.Errorf("%s has ended:\n%s", replica.Name, replica.Tail(10))
			}
			return err
		}
		if a != b {
			return fmt.Errorf("master's head is %s %s, %s's is %s %s", a.Number, a.Hash, replica.Name, b.Number, b.Hash)
		}
		return nil
	})
}

package master

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serveIPC answers each line with what answer makes of it, until the listener is closed.
func serveIPC(t *testing.T, path string, answer func(requests []ipcRequest) any) net.Listener {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					var requests []ipcRequest
					if json.Unmarshal(lines.Bytes(), &requests) != nil {
						return
					}
					reply := answer(requests)
					if reply == nil {
						return
					}
					body, _ := json.Marshal(reply)
					_, _ = conn.Write(body)
				}
			}()
		}
	}()
	return listener
}

func gethAnswers(requests []ipcRequest) any {
	results := map[string]any{
		"eth_chainId": "0x539", "net_peerCount": "0x7", "eth_syncing": map[string]any{"currentBlock": "0x1"},
		"web3_clientVersion": "Geth/test", "debug_dbGet": "0x09",
	}
	var replies []any
	for i := len(requests) - 1; i >= 0; i-- { // the order of answers is free
		r := requests[i]
		reply := map[string]any{"jsonrpc": "2.0", "id": r.ID}
		switch {
		case r.Method == "eth_getHeaderByNumber" && r.Params[0] == "safe":
			reply["error"] = map[string]any{"code": -39001, "message": "safe block not found"}
		case r.Method == "eth_getHeaderByNumber" && r.Params[0] == "finalized":
			reply["result"] = nil
		case r.Method == "eth_getHeaderByNumber":
			reply["result"] = map[string]any{"number": "0x10", "hash": "0xab" + r.Params[0].(string), "timestamp": "0x6553f100"}
		default:
			reply["result"] = results[r.Method]
		}
		replies = append(replies, reply)
	}
	return replies
}

func TestGethsViewIsReadInOneRoundTrip(t *testing.T) {
	path := filepath.Join(shortDir(t), "i")
	serveIPC(t, path, gethAnswers)
	client := &ipcClient{path: path}
	defer client.close()
	for range 2 { // the connection is kept
		view, err := queryGeth(testContext(t), client)
		if err != nil {
			t.Fatal(err)
		}
		if view.head == nil || view.head.Number != 16 || view.head.Time != 0x6553f100 || view.safe != nil || view.finalized != nil {
			t.Errorf("blocks: %+v %+v %+v", view.head, view.safe, view.finalized)
		}
		if view.genesis != "0xab0x0" || view.chainID != 1337 || view.peers != 7 || !view.syncing ||
			view.version != "Geth/test" || view.databaseVersion != 9 {
			t.Errorf("view: %+v", view)
		}
	}
}

func TestIPCThatComesAndGoesIsFoundAgain(t *testing.T) {
	path := filepath.Join(shortDir(t), "i")
	client := &ipcClient{path: path}
	defer client.close()
	for range 3 {
		if _, err := queryGeth(testContext(t), client); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("without a geth: %v", err)
		}
		var once sync.Once
		listener := serveIPC(t, path, func(requests []ipcRequest) any {
			var reply any
			broke := false
			once.Do(func() { broke = true })
			if !broke { // else geth goes away in the middle of a call
				reply = gethAnswers(requests)
			}
			return reply
		})
		if _, err := queryGeth(testContext(t), client); err == nil {
			t.Fatal("no error for a connection that broke")
		}
		if _, err := queryGeth(testContext(t), client); err != nil {
			t.Fatal(err)
		}
		listener.Close()
		client.close()
	}
}

func TestIPCThatHangsOrLiesEndsInTime(t *testing.T) {
	answers := map[string]func([]ipcRequest) any{
		"hangs":     func([]ipcRequest) any { select {} },
		"not JSON":  func([]ipcRequest) any { return "words" },
		"too large": func([]ipcRequest) any { return strings.Repeat("x", 2*ipcAnswerLimit) },
		"an object": func([]ipcRequest) any { return map[string]any{"id": 1} },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "i")
			serveIPC(t, path, answer)
			ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
			defer cancel()
			if _, err := queryGeth(ctx, &ipcClient{path: path}); err == nil {
				t.Error("no error")
			}
		})
	}
}

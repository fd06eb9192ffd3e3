package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// ipcAnswerLimit bounds one answer of geth, bytes: six headers and a few short strings.
const ipcAnswerLimit = 1 << 20

// ipcClient speaks JSON-RPC 2.0 over geth's unix socket, one batch of calls at a time. It connects when it is used
// and again after any failure, so geth may come and go. It is not safe for use by several goroutines at once.
type ipcClient struct {
	path    string
	conn    net.Conn
	limited *io.LimitedReader
	decoder *json.Decoder
	nextID  int
}

// ipcCall is one call of a batch. Result is decoded into result; err is what geth answered instead.
type ipcCall struct {
	method string
	params []any
	result any
	err    error
}

type ipcRequest struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
}

type ipcResponse struct {
	ID     *int            `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

var errIPCDisabled = errors.New("geth is started without IPC")

// do sends the calls as one batch and waits for the answers until ctx ends. The error says that geth cannot be
// reached; what geth answers to a single call is in its err.
func (c *ipcClient) do(ctx context.Context, calls []*ipcCall) error {
	if c.path == "" {
		return errIPCDisabled
	}
	if err := c.exchange(ctx, calls); err != nil {
		c.close()
		return fmt.Errorf("geth's IPC at %s: %w", c.path, err)
	}
	return nil
}

func (c *ipcClient) exchange(ctx context.Context, calls []*ipcCall) error {
	if c.conn == nil {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", c.path)
		if err != nil {
			return err
		}
		c.conn = conn
		c.limited = &io.LimitedReader{R: conn}
		c.decoder = json.NewDecoder(c.limited)
	}
	c.limited.N = ipcAnswerLimit
	_ = c.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	first := c.nextID
	requests := make([]ipcRequest, len(calls))
	for i, call := range calls {
		params := call.params
		if params == nil {
			params = []any{}
		}
		requests[i] = ipcRequest{Version: "2.0", ID: first + i, Method: call.method, Params: params}
		call.err = errors.New("geth did not answer this call")
	}
	c.nextID += len(calls)
	body, err := json.Marshal(requests)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(append(body, '\n')); err != nil {
		return err
	}
	var responses []ipcResponse
	if err := c.decoder.Decode(&responses); err != nil {
		return err
	}
	for _, response := range responses {
		if response.ID == nil || *response.ID < first || *response.ID >= first+len(calls) {
			continue
		}
		call := calls[*response.ID-first]
		if response.Error != nil {
			call.err = fmt.Errorf("%s: %s (code %d)", call.method, response.Error.Message, response.Error.Code)
		} else {
			call.err = json.Unmarshal(response.Result, call.result)
		}
	}
	return nil
}

func (c *ipcClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// hexNumber is a JSON-RPC quantity: "0x" and hex digits.
type hexNumber uint64

func (n *hexNumber) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), "0x")
	if !ok {
		return fmt.Errorf("not a quantity: %.20q", text)
	}
	value, err := strconv.ParseUint(digits, 16, 64)
	*n = hexNumber(value)
	return err
}

// rpcHeader holds the fields of eth_getHeaderByNumber's answer that heartbeats carry.
type rpcHeader struct {
	Number hexNumber `json:"number"`
	Hash   string    `json:"hash"`
	Time   hexNumber `json:"timestamp"`
}

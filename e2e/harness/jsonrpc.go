package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/gorilla/websocket"
)

// Call is one JSON-RPC request.
type Call struct {
	Method string
	Params []any
}

func (c Call) String() string {
	params, err := json.Marshal(c.Params)
	if err != nil {
		return c.Method + " (" + err.Error() + ")"
	}
	return c.Method + string(params)
}

type envelope struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
}

// Encode is the request as it goes over the wire.
func (c Call) Encode(id int) ([]byte, error) {
	params := c.Params
	if params == nil {
		params = []any{}
	}
	return json.Marshal(envelope{Version: "2.0", ID: id, Method: c.Method, Params: params})
}

// EncodeBatch is a batch request with the ids 1, 2, 3 ….
func EncodeBatch(calls []Call) ([]byte, error) {
	var parts [][]byte
	for i, call := range calls {
		part, err := call.Encode(i + 1)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return append(append([]byte{'['}, bytes.Join(parts, []byte{','})...), ']'), nil
}

// Transport exchanges raw JSON-RPC messages.
type Transport interface {
	// Send returns the answer's bytes as they came, without the newline at the end.
	Send(ctx context.Context, request []byte) ([]byte, error)
	Close() error
}

// ErrRPC is the error of a call that the server answered with an error.
var ErrRPC = errors.New("JSON-RPC error")

// Ask sends one call and decodes the result into out (nil: ignored).
func Ask(ctx context.Context, t Transport, out any, method string, params ...any) error {
	request, err := Call{Method: method, Params: params}.Encode(1)
	if err != nil {
		return err
	}
	answer, err := t.Send(ctx, request)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	var response struct {
		Result json.RawMessage
		Error  *struct {
			Code    int
			Message string
		}
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return fmt.Errorf("%s: %w in %.200s", method, err, answer)
	}
	if response.Error != nil {
		return fmt.Errorf("%s: %w: %d %s", method, ErrRPC, response.Error.Code, response.Error.Message)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(response.Result, out)
}

// HTTP is a Transport over HTTP.
type HTTP struct{ URL string }

// Send implements Transport.
func (h HTTP) Send(ctx context.Context, request []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	body = bytes.TrimRight(body, "\n")
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %s: %.200s", response.Status, body)
	}
	return body, nil
}

// Close implements Transport.
func (h HTTP) Close() error { return nil }

// WebSocket is a Transport over one WebSocket connection.
type WebSocket struct {
	conn *websocket.Conn
	busy atomic.Bool
}

// DialWebSocket connects to a URL such as ws://127.0.0.1:8546.
func DialWebSocket(ctx context.Context, url string) (*WebSocket, error) {
	conn, response, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", url, err)
	}
	response.Body.Close()
	return &WebSocket{conn: conn}, nil
}

// Send implements Transport, for one call at a time.
func (w *WebSocket) Send(ctx context.Context, request []byte) ([]byte, error) {
	if !w.busy.CompareAndSwap(false, true) {
		return nil, errors.New("WebSocket: two calls at once")
	}
	defer w.busy.Store(false)
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	if err := w.conn.WriteMessage(websocket.TextMessage, request); err != nil {
		return nil, err
	}
	return w.Receive()
}

// Receive waits for the next message, which may be a notification.
func (w *WebSocket) Receive() ([]byte, error) {
	_, message, err := w.conn.ReadMessage()
	return bytes.TrimRight(message, "\n"), err
}

// Close implements Transport.
func (w *WebSocket) Close() error { return w.conn.Close() }

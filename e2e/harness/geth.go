package harness

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// RPCNamespaces are those that the tests ask for, on geth and on replicas.
const RPCNamespaces = "eth,net,web3,debug,txpool"

// Endpoints says where a node answers.
type Endpoints struct {
	HTTPPort, WSPort, EnginePort int
}

// HTTP is the transport to the HTTP port.
func (e Endpoints) HTTP() HTTP { return HTTP{URL: fmt.Sprintf("http://127.0.0.1:%d", e.HTTPPort)} }

// WSURL is the URL of the WebSocket port.
func (e Endpoints) WSURL() string { return fmt.Sprintf("ws://127.0.0.1:%d", e.WSPort) }

// EngineURL is the URL of the authenticated port.
func (e Endpoints) EngineURL() string { return fmt.Sprintf("http://127.0.0.1:%d", e.EnginePort) }

// NewEndpoints picks free ports.
func NewEndpoints() (e Endpoints, err error) {
	for _, port := range []*int{&e.HTTPPort, &e.WSPort, &e.EnginePort} {
		if *port, err = FreePort(); err != nil {
			return e, err
		}
	}
	return e, nil
}

// StorageArgs are the flags of a geth that Drover can capture.
func StorageArgs(datadir string) []string {
	return []string{"--datadir", datadir, "--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "archive"}
}

// InitArgs are geth's arguments to write a genesis block.
func InitArgs(datadir, genesis string) []string {
	return []string{"--datadir", datadir, "--db.engine", "leveldb", "--state.scheme", "hash", "init", genesis}
}

// ImportArgs are geth's arguments to import a chain and end.
func ImportArgs(datadir, chain string) []string {
	return append(StorageArgs(datadir), "import", chain)
}

// NodeArgs are geth's arguments to run as a node without peers that is driven
// through the Engine API with the secret in the file jwt.
func NodeArgs(datadir, jwt string, e Endpoints) []string {
	return append(serveArgs(datadir, e),
		"--networkid", "1337", "--syncmode", "full", "--authrpc.jwtsecret", jwt)
}

// DevArgs are geth's arguments to run a developer chain with a block each
// period; period 0 makes a block for each transaction.
func DevArgs(datadir string, e Endpoints, period time.Duration) []string {
	return append(serveArgs(datadir, e), "--dev", "--dev.period", strconv.Itoa(int(period.Seconds())))
}

func serveArgs(datadir string, e Endpoints) []string {
	return append(StorageArgs(datadir),
		"--port", "0", "--nodiscover", "--maxpeers", "0", "--nat", "none", "--cache", "256",
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(e.HTTPPort), "--http.api", RPCNamespaces,
		"--ws", "--ws.addr", "127.0.0.1", "--ws.port", strconv.Itoa(e.WSPort), "--ws.api", RPCNamespaces,
		"--authrpc.addr", "127.0.0.1", "--authrpc.port", strconv.Itoa(e.EnginePort))
}

// Chaindata is the directory of the database below a geth datadir.
func Chaindata(datadir string) string { return filepath.Join(datadir, "geth", "chaindata") }

// Ready waits until the node answers on its HTTP port, or has ended.
func Ready(ctx context.Context, p *Process, e Endpoints, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := Until(ctx, limit, 50*time.Millisecond, func(ctx context.Context) error {
		if !p.Running() {
			cancel()
			return fmt.Errorf("%s has ended:\n%s", p.Name, p.Tail(20))
		}
		return Ask(ctx, e.HTTP(), nil, "eth_chainId")
	})
	if err != nil {
		return fmt.Errorf("%s does not answer: %w\n%s", p.Name, err, p.Tail(20))
	}
	return nil
}

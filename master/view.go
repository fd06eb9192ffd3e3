package master

import (
	"context"

	"github.com/drover-io/drover/changelog"
)

// gethView is what geth says of itself over IPC.
type gethView struct {
	head, safe, finalized *changelog.BlockRef
	genesis               string // hash of block 0
	chainID               uint64
	version               string
	databaseVersion       int
	peers                 int
	syncing               bool
}

// queryGeth asks geth for its view in one round trip. A label that geth does not have yet (no safe block before the
// consensus client named one) is nil, not an error.
func queryGeth(ctx context.Context, client *ipcClient) (gethView, error) {
	var (
		head, safe, finalized, genesis *rpcHeader
		chainID, peers                 hexNumber
		version, databaseVersion       string
		syncing                        any
	)
	header := func(label string, into **rpcHeader) *ipcCall {
		return &ipcCall{method: "eth_getHeaderByNumber", params: []any{label}, result: into}
	}
	err := client.do(ctx, []*ipcCall{
		header("latest", &head), header("safe", &safe), header("finalized", &finalized), header("0x0", &genesis),
		{method: "eth_chainId", result: &chainID},
		{method: "net_peerCount", result: &peers},
		{method: "eth_syncing", result: &syncing},
		{method: "web3_clientVersion", result: &version},
		// geth's own key for the version of its schema (core/rawdb/schema.go, databaseVersionKey); RLP of an integer.
		{method: "debug_dbGet", params: []any{"DatabaseVersion"}, result: &databaseVersion},
	})
	if err != nil {
		return gethView{}, err
	}
	view := gethView{
		head: head.ref(), safe: safe.ref(), finalized: finalized.ref(),
		chainID: uint64(chainID), peers: int(peers), version: version,
		syncing: syncing != nil && syncing != false,
	}
	if genesis != nil {
		view.genesis = genesis.Hash
	}
	var number hexNumber
	if number.UnmarshalText([]byte(databaseVersion)) == nil && number < 0x80 {
		view.databaseVersion = int(number)
	}
	return view, nil
}

func (h *rpcHeader) ref() *changelog.BlockRef {
	if h == nil || h.Hash == "" {
		return nil
	}
	return &changelog.BlockRef{Number: uint64(h.Number), Hash: h.Hash, Time: uint64(h.Time)}
}

package replica

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"
)

// answer is what a node says, result or error, as bytes.
func answer(c *rpc.Client, method string, args ...any) string {
	var result json.RawMessage
	if err := c.Call(&result, method, args...); err != nil {
		out := "error: " + err.Error()
		if e, ok := err.(rpc.Error); ok {
			out += fmt.Sprintf(" (%d)", e.ErrorCode())
		}
		if e, ok := err.(rpc.DataError); ok {
			out += fmt.Sprintf(" %v", e.ErrorData())
		}
		return out
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, result); err != nil {
		return err.Error()
	}
	return compact.String()
}

func TestTheReplicaAnswersAsTheMaster(t *testing.T) {
	p := newPair(t, nil)
	a := p.extend(p.root, 25, 6)
	p.m.grow(a...)
	side := p.extend(a[20], 2, 2)
	p.m.payload(side...)
	p.m.forkchoice(a[24], a[12].Hash(), a[8].Hash())
	p.agree("growing")

	block := a[15]
	tx := block.Transactions()[1]
	call := map[string]any{"from": p.from, "to": logger, "data": "0x01"}
	type args = []any
	for _, c := range []struct {
		method string
		args   args
	}{
		{"eth_blockNumber", nil}, {"eth_chainId", nil}, {"eth_syncing", nil}, {"eth_accounts", nil}, {"eth_config", nil},
		{"eth_gasPrice", nil}, {"eth_maxPriorityFeePerGas", nil}, {"eth_feeHistory", args{"0x5", "latest", []float64{10, 50}}},
		{"eth_feeHistory", args{"0x5", hexutil.Uint64(10), []float64{}}}, {"eth_blobBaseFee", nil},
		{"net_version", nil}, {"net_listening", nil}, {"net_peerCount", nil},
		{"web3_clientVersion", nil}, {"web3_sha3", args{"0x68656c6c6f"}},
		{"eth_getBlockByNumber", args{"pending", false}},
		{"eth_getBlockByNumber", args{"earliest", true}}, {"eth_getBlockByNumber", args{"0x999", true}},
		{"eth_getBlockByHash", args{block.Hash(), true}}, {"eth_getBlockByHash", args{side[1].Hash(), true}},
		{"eth_getHeaderByNumber", args{"latest"}}, {"eth_getHeaderByHash", args{block.Hash()}},
		{"eth_getBlockReceipts", args{"latest"}}, {"eth_getBlockReceipts", args{block.Hash()}},
		{"eth_getBlockTransactionCountByNumber", args{"latest"}}, {"eth_getBlockTransactionCountByHash", args{block.Hash()}},
		{"eth_getUncleCountByBlockNumber", args{"latest"}},
		{"eth_getTransactionByHash", args{tx.Hash()}}, {"eth_getTransactionByHash", args{side[0].Transactions()[0].Hash()}},
		{"eth_getTransactionReceipt", args{tx.Hash()}}, {"eth_getTransactionReceipt", args{block.Hash()}},
		{"eth_getRawTransactionByHash", args{tx.Hash()}},
		{"eth_getTransactionByBlockNumberAndIndex", args{"latest", "0x1"}},
		{"eth_getTransactionByBlockHashAndIndex", args{block.Hash(), "0x2"}},
		{"eth_getBalance", args{p.from, "0x5"}}, {"eth_getBalance", args{p.from, "safe"}}, {"eth_getBalance", args{p.from, "pending"}},
		{"eth_getCode", args{logger, "latest"}}, {"eth_getStorageAt", args{logger, "0x0", "finalized"}},
		{"eth_getProof", args{logger, []string{"0x0"}, "latest"}}, {"eth_getTransactionCount", args{p.from, "pending"}},
		{"eth_call", args{call, "latest"}}, {"eth_call", args{call, block.Hash()}}, {"eth_call", args{map[string]any{"to": logger, "gas": "0x1"}, "latest"}},
		{"eth_estimateGas", args{call}}, {"eth_createAccessList", args{call, "latest"}},
		{"eth_simulateV1", args{map[string]any{"blockStateCalls": []any{map[string]any{"calls": []any{call}}}}, "0x5"}},
		{"eth_getLogs", args{map[string]any{"fromBlock": "0x3", "toBlock": "0x9", "address": logger}}},
		{"eth_getLogs", args{map[string]any{"blockHash": side[1].Hash()}}}, {"eth_getLogs", args{map[string]any{"fromBlock": "0x9", "toBlock": "0x3"}}},
		{"debug_getRawBlock", args{"latest"}}, {"debug_getRawHeader", args{"0x3"}}, {"debug_getRawReceipts", args{"0x3"}},
		{"debug_getRawTransaction", args{tx.Hash()}}, {"debug_getBadBlocks", nil},
		{"debug_traceTransaction", args{tx.Hash()}}, {"debug_traceTransaction", args{tx.Hash(), map[string]any{"tracer": "callTracer"}}},
		{"debug_traceBlockByNumber", args{"0x4", map[string]any{"tracer": "prestateTracer"}}}, {"debug_traceCall", args{call, "latest", map[string]any{}}},
		{"debug_storageRangeAt", args{block.Hash(), 0, logger, "0x", 10}}, {"debug_accountRange", args{"0x5", "0x", 5, true, true, false}},
		{"debug_getModifiedAccountsByNumber", args{4, 6}}, {"debug_intermediateRoots", args{block.Hash()}},
		{"debug_preimage", args{"0x290decd9548b62a8d60345a988386fc84ba6bc95484008f6362f93160ef3e563"}},
		{"txpool_status", nil}, {"txpool_content", nil}, {"eth_nothing", nil}, {"eth_getBalance", args{"0x1"}},
	} {
		want, got := answer(p.m.rpc, c.method, c.args...), answer(p.ws, c.method, c.args...)
		if want != got {
			t.Errorf("%s %v:\nmaster  %.600s\nreplica %.600s", c.method, c.args, want, got)
		}
	}
	p.stop()
}

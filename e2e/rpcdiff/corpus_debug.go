package rpcdiff

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/drover-io/drover/tools/chaingen/chain"
)

func debugCalls(s *sample) []call {
	last := s.blocks[len(s.blocks)-1]
	calls := []call{
		ask("debug_getBadBlocks"), ask("debug_getTrieFlushInterval"),
		ask("debug_preimage", unknownHash), ask("debug_traceBadBlock", unknownHash),
		ask("debug_getAccessibleState", "0x1", "0x0"), ask("debug_getAccessibleState", "latest", "0x1"),
		ask("debug_dumpBlock", "0x0"),
		ask("debug_accountRange", "latest", "0x", 5, true, true, true),
		ask("debug_accountRange", last.tag(), "0x80", 3, false, false, true),
		ask("debug_dbGet", "LastBlock"), ask("debug_dbGet", "LastHeader"), ask("debug_dbGet", "LastFast"),
		ask("debug_dbGet", "DatabaseVersion"), ask("debug_dbGet", "0x00"),
	}
	for i, b := range s.blocks {
		var number [8]byte
		binary.BigEndian.PutUint64(number[:], uint64(b.Number))
		calls = append(calls,
			ask("debug_dbGet", hexutil.Bytes(append([]byte("H"), b.Hash[:]...))),
			ask("debug_dbGet", hexutil.Bytes(b.StateRoot[:])), // the trie's root node
			ask("debug_storageRangeAt", b.Hash, 0, chain.Recorders[0], "0x", 10),
			ask("debug_getRawReceipts", b.Hash), ask("debug_getRawHeader", b.Hash))
		if b.Number > 0 && i < 4 { // half a second each
			calls = append(calls, ask("debug_getModifiedAccountsByNumber", uint64(b.Number)-1, uint64(b.Number)))
		}
		if b.Number > 0 {
			calls = append(calls,
				ask("debug_getModifiedAccountsByHash", b.Hash),
				ask("debug_intermediateRoots", b.Hash),
				ask("debug_executionWitness", b.tag()))
		}
	}
	return calls
}

func traceCalls(s *sample) []call {
	tracers := list{
		nil, object{"tracer": "callTracer"}, object{"tracer": "callTracer", "tracerConfig": object{"withLog": true}},
		object{"tracer": "prestateTracer"}, object{"tracer": "prestateTracer", "tracerConfig": object{"diffMode": true}},
		object{"tracer": "4byteTracer"}, object{"tracer": "noopTracer"}, object{"tracer": "flatCallTracer"},
		object{"tracer": "muxTracer", "tracerConfig": object{"callTracer": object{}, "4byteTracer": object{}}},
		object{"enableMemory": true, "enableReturnData": true}, object{"disableStorage": true, "limit": 20},
		object{"tracer": "{count: 0, step: function() { this.count++ }, fault: function() {}, result: function() { return this.count }}"},
	}
	var calls []call
	for i, tx := range s.txs {
		calls = append(calls, ask("debug_traceTransaction", tx.Hash, orEmpty(tracers[i%len(tracers)])))
	}
	for i, b := range s.blocks {
		if i%3 == 1 {
			calls = append(calls, ask("debug_traceBlockByNumber", b.tag(), object{"tracer": "callTracer"}),
				ask("debug_traceBlockByHash", b.Hash, object{"tracer": "prestateTracer", "tracerConfig": object{"diffMode": true}}))
		}
	}
	for _, message := range s.messages() {
		for _, tracer := range tracers[:6] {
			calls = append(calls, ask("debug_traceCall", message, "latest", orEmpty(tracer)))
		}
		calls = append(calls, ask("debug_traceCall", message, s.blocks[len(s.blocks)-1].tag(), object{"tracer": "callTracer", "stateOverrides": object{chain.Refuser.Hex(): object{"code": "0x00"}}}))
	}
	return append(calls, ask("debug_traceBlock", "0x00"), ask("debug_traceBlockByNumber", "0x0"))
}

func orEmpty(value any) any {
	if value == nil {
		return object{}
	}
	return value
}

// badCalls are wrong in every way that a server can tell.
func badCalls(s *sample) []call {
	future := hexutil.EncodeUint64(s.head + 1_000_000)
	var calls []call
	for _, method := range []string{
		"eth_getBalance", "eth_getBlockByNumber", "eth_getBlockByHash", "eth_getTransactionByHash", "eth_getTransactionReceipt", "eth_getLogs",
		"eth_call", "eth_estimateGas", "eth_getProof", "eth_feeHistory", "eth_simulateV1", "debug_traceTransaction", "debug_traceCall", "debug_getRawBlock",
	} {
		calls = append(calls, ask(method), ask(method, "nonsense"), ask(method, 7), ask(method, nil, nil), ask(method, list{}, object{}),
			ask(method, unknownHash, future, 1, 2, 3, 4, 5))
	}
	for _, method := range []string{"eth_getBlockByHash"} {
		calls = append(calls, ask(method, unknownHash, true), ask(method, unknownHash, false))
	}
	return append(calls,
		ask("eth_noSuchMethod"), ask("nonamespace_method"), ask("noseparator"), ask(""), ask("admin_nodeInfo"), ask("engine_exchangeCapabilities", list{}),
		ask("eth_getBlockByNumber", future, true), ask("eth_getHeaderByNumber", future), ask("eth_getHeaderByHash", unknownHash),
		ask("eth_getBlockReceipts", unknownHash), ask("eth_getBlockReceipts", future),
		ask("eth_getBalance", stranger, future), ask("eth_getBalance", stranger, unknownHash), ask("eth_getCode", stranger, future),
		ask("eth_getStorageAt", stranger, "0xzz", "latest"), ask("eth_getStorageAt", stranger, "0x"+string(make([]byte, 0)), "latest"),
		ask("eth_getProof", stranger, list{"0xzz"}, "latest"), ask("eth_call", object{"to": stranger}, future),
		ask("eth_call", object{"to": stranger, "data": "0x01", "input": "0x02"}, "latest"),
		ask("eth_call", object{"to": stranger, "gasPrice": "0x1", "maxFeePerGas": "0x1"}, "latest"),
		ask("eth_getTransactionByHash", unknownHash), ask("eth_getTransactionReceipt", unknownHash), ask("eth_getRawTransactionByHash", unknownHash),
		ask("debug_traceTransaction", unknownHash, object{}), ask("debug_traceBlockByNumber", future, object{}), ask("debug_traceBlockByHash", unknownHash, object{}),
		ask("debug_traceTransaction", s.txs[0].Hash, object{"tracer": "noSuchTracer"}), ask("debug_traceTransaction", s.txs[0].Hash, object{"timeout": "soon"}),
		ask("eth_getLogs", object{"fromBlock": "0x5", "toBlock": "0x1"}), ask("eth_getLogs", object{"blockHash": unknownHash}),
		ask("eth_getLogs", object{"blockHash": unknownHash, "fromBlock": "0x1"}), ask("eth_getLogs", object{"fromBlock": future, "toBlock": future}),
		ask("eth_getLogs", object{"topics": list{nil, nil, nil, nil, nil}}),
		ask("eth_getFilterChanges", "0x1"), ask("eth_getFilterLogs", "0x1"), ask("eth_uninstallFilter", "0x1"),
		ask("eth_feeHistory", 2, "latest", list{90, 10}), ask("eth_feeHistory", 2, future, list{}), ask("eth_feeHistory", 2, "latest", list{101}),
		ask("debug_getRawTransaction", unknownHash), ask("debug_getRawHeader", future), ask("debug_printBlock", s.head+1_000_000),
		ask("debug_storageRangeAt", unknownHash, 0, stranger, "0x", 1), ask("debug_dbGet", "0xzz"), ask("debug_dumpBlock", future),
		ask("debug_getModifiedAccountsByNumber", s.head+5), ask("debug_getModifiedAccountsByHash", unknownHash), ask("debug_intermediateRoots", unknownHash),
		ask("txpool_contentFrom", "0x12"), ask("web3_sha3", "0x1"), ask("web3_sha3"),
		ask("eth_getBlockByNumber", common.Hash{}, true))
}

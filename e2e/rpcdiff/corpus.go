package rpcdiff

import (
	"context"
	"encoding/binary"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/tools/chaingen/chain"
)

type (
	call   = harness.Call
	object = map[string]any
	list   = []any
)

var (
	unknownHash = crypto.Keccak256Hash([]byte("nobody has this"))
	stranger    = common.HexToAddress("0x5eed00000000000000000000000000000000beef")
)

// Corpus makes the questions about the chain behind t. The same chain and seed
// give the same questions.
func Corpus(ctx context.Context, t harness.Transport, seed uint64) ([]harness.Call, error) {
	s, err := newSample(ctx, t, seed)
	if err != nil {
		return nil, err
	}
	var calls []call
	for _, group := range []func(*sample) []call{nodeCalls, blockCalls, transactionCalls, stateCalls, executionCalls, logCalls, debugCalls, traceCalls, badCalls} {
		calls = append(calls, group(s)...)
	}
	return calls, nil
}

// Methods are the distinct methods of calls.
func Methods(calls []harness.Call) map[string]int {
	methods := make(map[string]int)
	for _, c := range calls {
		methods[c.Method]++
	}
	return methods
}

func ask(method string, params ...any) call { return call{Method: method, Params: params} }

func nodeCalls(s *sample) []call {
	calls := []call{
		ask("rpc_modules"), ask("net_version"), ask("net_listening"), ask("net_peerCount"), ask("web3_clientVersion"),
		ask("web3_sha3", "0x68656c6c6f"), ask("web3_sha3", "0x"),
		ask("eth_chainId"), ask("eth_blockNumber"), ask("eth_syncing"), ask("eth_config"), ask("eth_capabilities"),
		ask("eth_gasPrice"), ask("eth_maxPriorityFeePerGas"), ask("eth_blobBaseFee"), ask("eth_baseFee"),
		ask("eth_pendingTransactions"), ask("eth_accounts"),
		ask("txpool_status"), ask("txpool_content"), ask("txpool_inspect"), ask("txpool_contentFrom", stranger),
		ask("eth_feeHistory", "0x5", "latest", list{}), ask("eth_feeHistory", 10, "latest", list{5, 50, 95.5}),
		ask("eth_feeHistory", 1024, "latest", list{20}), ask("eth_feeHistory", 0, "latest", list{}),
	}
	for _, b := range s.blocks {
		calls = append(calls, ask("eth_feeHistory", "0x3", b.tag(), list{10, 90}))
	}
	return calls
}

func blockCalls(s *sample) []call {
	var calls []call
	for _, tag := range []string{"latest", "earliest", "safe", "finalized"} {
		calls = append(calls, ask("eth_getBlockByNumber", tag, false), ask("eth_getHeaderByNumber", tag),
			ask("eth_getBlockTransactionCountByNumber", tag), ask("eth_getUncleCountByBlockNumber", tag),
			ask("eth_getBlockReceipts", tag))
	}
	for _, b := range s.blocks {
		calls = append(calls,
			ask("eth_getBlockByNumber", b.tag(), true), ask("eth_getBlockByNumber", b.tag(), false),
			ask("eth_getBlockByHash", b.Hash, true), ask("eth_getBlockByHash", b.Hash, false),
			ask("eth_getHeaderByNumber", b.tag()), ask("eth_getHeaderByHash", b.Hash),
			ask("eth_getBlockTransactionCountByNumber", b.tag()), ask("eth_getBlockTransactionCountByHash", b.Hash),
			ask("eth_getUncleCountByBlockNumber", b.tag()), ask("eth_getUncleCountByBlockHash", b.Hash),
			ask("eth_getUncleByBlockNumberAndIndex", b.tag(), "0x0"), ask("eth_getUncleByBlockHashAndIndex", b.Hash, "0x0"),
			ask("eth_getBlockReceipts", b.tag()), ask("eth_getBlockReceipts", b.Hash),
			ask("debug_getRawHeader", b.tag()), ask("debug_getRawBlock", b.tag()), ask("debug_getRawReceipts", b.tag()),
			ask("debug_getRawBlock", b.Hash), ask("debug_printBlock", uint64(b.Number)))
	}
	return calls
}

func transactionCalls(s *sample) []call {
	var calls []call
	for _, tx := range s.txs {
		calls = append(calls,
			ask("eth_getTransactionByHash", tx.Hash), ask("eth_getTransactionReceipt", tx.Hash),
			ask("eth_getRawTransactionByHash", tx.Hash), ask("debug_getRawTransaction", tx.Hash))
	}
	for _, b := range s.blocks {
		for _, index := range []string{"0x0", "0x7", "0xc7", "0xffff"} {
			calls = append(calls,
				ask("eth_getTransactionByBlockNumberAndIndex", b.tag(), index), ask("eth_getTransactionByBlockHashAndIndex", b.Hash, index),
				ask("eth_getRawTransactionByBlockNumberAndIndex", b.tag(), index), ask("eth_getRawTransactionByBlockHashAndIndex", b.Hash, index))
		}
	}
	return append(calls,
		// Nobody holds the key of this account, so these are errors.
		ask("eth_sendTransaction", object{"from": stranger, "to": stranger, "value": "0x1"}),
		ask("eth_signTransaction", object{"from": stranger, "to": stranger, "gas": "0x5208", "gasPrice": "0x1", "nonce": "0x0"}),
		ask("eth_sign", stranger, "0x01"),
		ask("eth_resend", object{"from": stranger, "to": stranger, "nonce": "0x0"}, "0x1", "0x1"),
		ask("eth_fillTransaction", object{"from": s.txs[0].From, "to": stranger, "value": "0x1", "gas": "0x5208", "nonce": "0x1", "maxFeePerGas": "0xffffffffff", "maxPriorityFeePerGas": "0x1"}),
		ask("eth_sendRawTransaction", "0x02f8"), ask("eth_sendRawTransaction", "0x"),
		ask("eth_sendRawTransactionSync", "0x02f8"),
		// Included long ago.
		ask("eth_sendRawTransaction", mined))
}

// mined is a well-formed transaction of another chain.
const mined = "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"

func stateCalls(s *sample) []call {
	var calls []call
	places := list{"latest", "earliest", "safe", object{"blockHash": s.blocks[len(s.blocks)-1].Hash, "requireCanonical": true}}
	for _, b := range s.blocks[1:] {
		places = append(places, b.tag())
	}
	for i, address := range s.addresses() {
		place := func(k int) any { return places[(i+k)%len(places)] }
		calls = append(calls,
			ask("eth_getBalance", address, "latest"), ask("eth_getBalance", address, place(0)),
			ask("eth_getTransactionCount", address, "latest"), ask("eth_getTransactionCount", address, place(1)),
			ask("eth_getCode", address, place(2)),
			ask("eth_getStorageAt", address, "0x0", place(3)),
			ask("eth_getStorageAt", address, s.slot(), "latest"),
			ask("eth_getStorageValues", object{strings.ToLower(address.Hex()): list{common.Hash{}, s.slot()}}, place(4)),
			ask("eth_getProof", address, list{"0x0", s.slot()}, place(5)))
	}
	return append(calls,
		ask("eth_getBalance", chain.Recorders[0]), // the block is optional
		ask("eth_getBalance", chain.Recorders[0], object{"blockNumber": s.blocks[1].tag()}),
		ask("eth_getProof", chain.Recorders[1], list{}, "latest"))
}

// slot is a storage slot of a recorder's mapping, in use or not.
func (s *sample) slot() common.Hash { return recordedSlot(s.random.Uint64N(20_000)) }

func recordedSlot(key uint64) common.Hash {
	var preimage [64]byte
	binary.BigEndian.PutUint64(preimage[24:], key)
	preimage[63] = 1
	return crypto.Keccak256Hash(preimage[:])
}

func word(value uint64) []byte {
	return common.BigToHash(hexutil.MustDecodeBig(hexutil.EncodeUint64(value))).Bytes()
}

// messages are calls of every contract, such as the chain's transactions make.
func (s *sample) messages() []object {
	record := hexutil.Bytes(append(word(s.random.Uint64N(20_000)), word(7)...))
	forward := hexutil.Bytes(append(common.LeftPadBytes(chain.Recorders[1][:], 32), record...))
	from := s.txs[0].From
	return []object{
		{"to": chain.Recorders[0], "data": hexutil.Bytes(word(s.random.Uint64N(20_000)))},
		{"from": from, "to": chain.Recorders[0], "data": record},
		{"from": from, "to": chain.Forwarder, "input": forward},
		{"from": from, "to": chain.Refuser, "data": hexutil.Bytes(word(1))},
		{"from": from, "to": chain.Refuser, "data": hexutil.Bytes(word(0)), "gas": "0x186a0"},
		{"from": from, "to": stranger, "value": "0x1"},
		{"from": stranger, "to": from, "value": "0xde0b6b3a7640000"}, // has no funds
		{"from": from, "data": "0x602a5ff3"},
	}
}

func executionCalls(s *sample) []call {
	var calls []call
	for _, message := range s.messages() {
		for _, place := range (list{"latest", s.blocks[len(s.blocks)-1].tag(), "earliest"}) {
			calls = append(calls, ask("eth_call", message, place), ask("eth_estimateGas", message, place),
				ask("eth_createAccessList", message, place))
		}
		calls = append(calls, ask("eth_simulateV1", object{"blockStateCalls": list{object{"calls": list{message}}}, "traceTransfers": true, "returnFullTransactions": true}, "latest"))
	}
	message := s.messages()[0]
	override := object{strings.ToLower(chain.Recorders[0].Hex()): object{"stateDiff": object{recordedSlot(1).Hex(): common.HexToHash("0x99")}, "balance": "0x10"}}
	return append(calls,
		ask("eth_call", message, "latest", override), ask("eth_call", message, "latest", object{}, object{"number": "0xffffff", "time": "0xfffffff"}),
		ask("eth_estimateGas", s.messages()[1], "latest", override),
		ask("eth_simulateV1", object{"blockStateCalls": list{object{"stateOverrides": override, "calls": s.messages()[:3]}, object{"calls": s.messages()[1:2]}}, "validation": false}, s.blocks[2].tag()))
}

func logCalls(s *sample) []call {
	window := func(b block, width uint64) object {
		from := uint64(b.Number) - min(uint64(b.Number), width)
		return object{"fromBlock": hexutil.EncodeUint64(from), "toBlock": b.tag()}
	}
	with := func(filter object, key string, value any) object {
		copied := object{key: value}
		for k, v := range filter {
			copied[k] = v
		}
		return copied
	}
	var calls []call
	for _, b := range s.blocks {
		calls = append(calls,
			ask("eth_getLogs", object{"blockHash": b.Hash}),
			ask("eth_getLogs", with(window(b, 20), "address", chain.Recorders[0])),
			ask("eth_getLogs", with(window(b, 40), "topics", list{chain.RecordedTopic, nil, common.BytesToHash(word(s.random.Uint64N(20_000)))})),
			ask("eth_getLogs", with(with(window(b, 10), "address", list{chain.Recorders[1], chain.Recorders[2]}), "topics", list{list{chain.RecordedTopic, unknownHash}})))
	}
	for i, topic := range s.topics {
		filter := with(window(s.blocks[i%len(s.blocks)], 100), "topics", list{nil, topic})
		if i == len(s.topics)-1 { // the whole chain, which is slow
			filter["fromBlock"], filter["toBlock"] = "0x0", "latest"
		}
		calls = append(calls, ask("eth_getLogs", filter))
	}
	return append(calls,
		ask("eth_getLogs", object{"fromBlock": "latest"}), ask("eth_getLogs", object{}),
		ask("eth_getLogs", object{"fromBlock": "earliest", "toBlock": "0x5", "topics": list{}}))
}

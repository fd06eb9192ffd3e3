package replica

import (
	"context"
	"errors"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/rpc"
)

// refusal answers a method that a replica does not serve.
type refusal struct{ why string }

func (r refusal) Error() string { return r.why }

// ErrorCode is EIP-1474's "method not supported".
func (r refusal) ErrorCode() int { return -32004 }

var (
	errReadOnly       = refusal{"not available on a replica: its database is written by the change log alone; ask the master's operator"}
	errNoTransactions = refusal{"this replica does not take transactions yet; send them to the master"}
	errServerFiles    = refusal{"not available on a replica: it would read or write files on the server"}
)

// refusedMethods are registered after geth's own services of their namespace and take their places. Namespaces that are
// not enabled get geth's own answer, that the method does not exist.
func refusedMethods(backend *eth.Ethereum) []rpc.API {
	return []rpc.API{
		{Namespace: "eth", Service: refusedEth{}},
		{Namespace: "debug", Service: refusedDebug{eth.NewDebugAPI(backend)}},
	}
}

// servedNamespaces are what --http.api and --ws.api may name.
var servedNamespaces = map[string]bool{"eth": true, "net": true, "web3": true, "debug": true, "txpool": true, "rpc": true}

type refusedEth struct{}

func (refusedEth) SendRawTransaction(context.Context, *hexutil.Bytes) (common.Hash, error) {
	return common.Hash{}, errNoTransactions
}

func (refusedEth) SendRawTransactionSync(context.Context, *hexutil.Bytes, *uint64) (common.Hash, error) {
	return common.Hash{}, errNoTransactions
}

func (refusedEth) SendTransaction(context.Context, *any) (common.Hash, error) {
	return common.Hash{}, errNoTransactions
}

func (refusedEth) Resend(context.Context, *any, *any, *any) (common.Hash, error) {
	return common.Hash{}, errNoTransactions
}

type refusedDebug struct{ debug *eth.DebugAPI }

func (refusedDebug) SetHead(*any) error              { return errReadOnly }
func (refusedDebug) ChaindbCompact() error           { return errReadOnly }
func (refusedDebug) SetTrieFlushInterval(*any) error { return errReadOnly }
func (refusedDebug) ClearTxpool() error              { return errReadOnly }

func (refusedDebug) TraceBlockFromFile(*any, *any) (any, error)          { return nil, errServerFiles }
func (refusedDebug) StandardTraceBlockToFile(*any, *any) (any, error)    { return nil, errServerFiles }
func (refusedDebug) StandardTraceBadBlockToFile(*any, *any) (any, error) { return nil, errServerFiles }

func (r refusedDebug) GetBadBlocks(ctx context.Context, file *string) ([]*eth.BadBlockArgs, error) {
	if file != nil {
		return nil, errServerFiles
	}
	return r.debug.GetBadBlocks(ctx, nil)
}

// web3API answers as geth's node does; the node keeps its own to itself.
type web3API struct{ name string }

func (w web3API) ClientVersion() string { return w.name }

func (w web3API) Sha3(input hexutil.Bytes) hexutil.Bytes { return crypto.Keccak256(input) }

var errNamespace = errors.New("namespace is not served by a replica")

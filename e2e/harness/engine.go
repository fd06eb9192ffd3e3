package harness

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
)

// Engine plays the consensus client of a geth whose chain is at Osaka, which
// fixes the versions of the Engine API's methods.
type Engine struct {
	client *rpc.Client
	last   uint64 // timestamp of the newest block built
}

// WriteJWT writes a new secret to path, for --authrpc.jwtsecret.
func WriteJWT(path string) (secret [32]byte, err error) {
	if _, err := rand.Read(secret[:]); err != nil {
		return secret, err
	}
	return secret, os.WriteFile(path, []byte(hex.EncodeToString(secret[:])), 0o600)
}

// DialEngine connects to geth's authenticated port, such as http://127.0.0.1:8551.
func DialEngine(ctx context.Context, url string, secret [32]byte) (*Engine, error) {
	client, err := rpc.DialOptions(ctx, url, rpc.WithHTTPAuth(node.NewJWTAuth(secret)))
	if err != nil {
		return nil, err
	}
	return &Engine{client: client}, nil
}

// Close closes the connection.
func (e *Engine) Close() { e.client.Close() }

// Insert gives a block to geth, which executes and stores it without making it
// the head. The block carries no execution-layer requests.
func (e *Engine) Insert(ctx context.Context, block *types.Block) error {
	hashes := []common.Hash{}
	for _, tx := range block.Transactions() {
		hashes = append(hashes, tx.BlobHashes()...)
	}
	payload := engine.BlockToExecutableData(block, common.Big0, nil, nil).ExecutionPayload
	return e.newPayload(ctx, payload, hashes, *block.BeaconRoot(), []hexutil.Bytes{})
}

func (e *Engine) newPayload(ctx context.Context, payload *engine.ExecutableData, hashes []common.Hash, root common.Hash, requests []hexutil.Bytes) error {
	var status engine.PayloadStatusV1
	if err := e.client.CallContext(ctx, &status, "engine_newPayloadV4", payload, hashes, root, requests); err != nil {
		return fmt.Errorf("engine_newPayload of block %d %s: %w", payload.Number, payload.BlockHash, err)
	}
	if status.Status != engine.VALID {
		return fmt.Errorf("engine_newPayload of block %d %s: %s", payload.Number, payload.BlockHash, describe(status))
	}
	return nil
}

// Head makes a known block the head. Zero hashes leave safe and finalized as they are.
func (e *Engine) Head(ctx context.Context, head, safe, finalized common.Hash) error {
	_, err := e.forkchoice(ctx, head, safe, finalized, nil)
	return err
}

func (e *Engine) forkchoice(ctx context.Context, head, safe, finalized common.Hash, attributes *engine.PayloadAttributes) (*engine.PayloadID, error) {
	state := engine.ForkchoiceStateV1{HeadBlockHash: head, SafeBlockHash: safe, FinalizedBlockHash: finalized}
	var response engine.ForkChoiceResponse
	if err := e.client.CallContext(ctx, &response, "engine_forkchoiceUpdatedV3", state, attributes); err != nil {
		return nil, fmt.Errorf("engine_forkchoiceUpdated to %s: %w", head, err)
	}
	if response.PayloadStatus.Status != engine.VALID {
		return nil, fmt.Errorf("engine_forkchoiceUpdated to %s: %s", head, describe(response.PayloadStatus))
	}
	return response.PayloadID, nil
}

// Build makes parent the head, lets geth build a block on it from its
// transaction pool within the time given, and inserts that block. It does not
// become the head. Every block gets a fee recipient of its own from salt, so
// that siblings differ.
func (e *Engine) Build(ctx context.Context, parent *types.Header, salt uint64, within time.Duration) (*types.Block, error) {
	e.last = max(e.last, parent.Time, uint64(time.Now().Unix())-1) + 1
	attributes := &engine.PayloadAttributes{
		Timestamp:             e.last,
		SuggestedFeeRecipient: common.BigToAddress(hexutil.MustDecodeBig(hexutil.EncodeUint64(0xfe00_0000 + salt))),
		Withdrawals:           []*types.Withdrawal{},
		BeaconRoot:            &common.Hash{},
	}
	id, err := e.forkchoice(ctx, parent.Hash(), common.Hash{}, common.Hash{}, attributes)
	if err != nil {
		return nil, err
	}
	if id == nil {
		return nil, fmt.Errorf("geth did not begin to build on block %d %s", parent.Number, parent.Hash())
	}
	select {
	case <-time.After(within):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var envelope engine.ExecutionPayloadEnvelope
	if err := e.client.CallContext(ctx, &envelope, "engine_getPayloadV5", id); err != nil {
		return nil, fmt.Errorf("engine_getPayload: %w", err)
	}
	requests := make([]hexutil.Bytes, 0, len(envelope.Requests))
	for _, request := range envelope.Requests {
		requests = append(requests, request)
	}
	hashes := []common.Hash{}
	block, err := engine.ExecutableDataToBlock(*envelope.ExecutionPayload, hashes, &common.Hash{}, envelope.Requests)
	if err != nil {
		return nil, err
	}
	return block, e.newPayload(ctx, envelope.ExecutionPayload, hashes, common.Hash{}, requests)
}

func describe(status engine.PayloadStatusV1) string {
	if status.ValidationError != nil {
		return status.Status + ": " + *status.ValidationError
	}
	return status.Status
}

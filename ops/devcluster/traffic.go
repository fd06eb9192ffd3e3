package devcluster

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// counterInit deploys a contract that counts its calls in slot 0 and logs each count:
//
//	PUSH1 17 DUP1 PUSH1 9 PUSH0 CODECOPY PUSH0 RETURN   copy the rest to memory and return it as the contract's code
//	PUSH0 SLOAD PUSH1 1 ADD DUP1 PUSH0 SSTORE           slot 0 += 1
//	PUSH0 MSTORE PUSH1 42 PUSH1 32 PUSH0 LOG1 STOP      log the count under topic 42
const counterInit = "0x60118060095f395ff3" + "5f54600101805f555f52602a60205fa100"

// trafficInterval keeps the stream light: a few transactions in each block of a second.
const trafficInterval = 300 * time.Millisecond

// traffic sends example transactions from geth's developer account until ctx ends: transfers to ever new accounts,
// and calls of a contract that writes storage and emits a log. A refused transaction is logged once and tried again later.
type traffic struct {
	client  *client
	gethURL string
	logger  *slog.Logger

	account string
	counter string // address of the contract, once it is mined
	sent    uint64
}

func (t *traffic) run(ctx context.Context) {
	ticker := time.NewTicker(trafficInterval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := t.step(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			t.logger.Warn("example transactions are refused for now", "err", err)
		}
		failing = err != nil
	}
}

// step sends one transaction.
func (t *traffic) step(ctx context.Context) error {
	if t.account == "" {
		var accounts []string
		if err := t.client.call(ctx, t.gethURL, &accounts, "eth_accounts"); err != nil {
			return err
		}
		if len(accounts) == 0 {
			return fmt.Errorf("geth at %s has no developer account", t.gethURL)
		}
		t.account = accounts[0]
	}
	if t.counter == "" {
		return t.deploy(ctx)
	}
	t.sent++
	if t.sent%2 == 0 {
		return t.client.call(ctx, t.gethURL, nil, "eth_sendTransaction", map[string]string{"from": t.account, "to": t.counter})
	}
	fresh := fmt.Sprintf("0x%040x", time.Now().UnixNano())
	return t.client.call(ctx, t.gethURL, nil, "eth_sendTransaction",
		map[string]string{"from": t.account, "to": fresh, "value": "0xde0b6b3a7640000"})
}

// deploy creates the contract and waits for its receipt.
func (t *traffic) deploy(ctx context.Context) error {
	var hash string
	deployment := map[string]string{"from": t.account, "data": counterInit, "gas": "0x30d40"}
	if err := t.client.call(ctx, t.gethURL, &hash, "eth_sendTransaction", deployment); err != nil {
		return err
	}
	ticker := time.NewTicker(trafficInterval)
	defer ticker.Stop()
	for {
		var receipt *struct{ ContractAddress string }
		if err := t.client.call(ctx, t.gethURL, &receipt, "eth_getTransactionReceipt", hash); err != nil {
			return err
		}
		if receipt != nil {
			t.counter = receipt.ContractAddress
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

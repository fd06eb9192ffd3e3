package rpcdiff

import (
	"bytes"
	"context"
	"fmt"

	"github.com/drover-io/drover/e2e/harness"
)

// Exempt are the methods that rightly answer differently, with the reason.
// They are asked all the same: both nodes have to answer.
var Exempt = map[string]string{
	"web3_clientVersion": "names the program that answers, which is geth on one side and drover on the other",
	"debug_printBlock":   "geth prints the addresses of Go pointers",
	"eth_accounts":       "lists the keys in geth's keystore (a developer chain has one); replicas hold no keys",

	// Replicas refuse to send, with an error that names the way out: what they
	// accept is to go through a relay that does not exist yet.
	"eth_sendTransaction":        "a replica refuses to send",
	"eth_sendRawTransaction":     "a replica refuses to send",
	"eth_sendRawTransactionSync": "a replica refuses to send",
	"eth_resend":                 "a replica refuses to send",
}

// Difference is a question that two nodes answer differently.
type Difference struct {
	Transport     string
	Call          harness.Call
	Master, Other []byte
}

func (d Difference) String() string {
	at := 0
	for at < len(d.Master) && at < len(d.Other) && d.Master[at] == d.Other[at] {
		at++
	}
	from := max(0, at-60)
	clip := func(answer []byte) []byte { return answer[min(from, len(answer)):min(from+400, len(answer))] }
	return fmt.Sprintf("%s %.300s\n  master (from byte %d) %s\n  other  %s", d.Transport, d.Call, from, clip(d.Master), clip(d.Other))
}

// Compare asks both nodes every question over HTTP, over WebSocket, and in
// batches over both.
func Compare(ctx context.Context, master, other harness.Endpoints, calls []harness.Call) ([]Difference, error) {
	overHTTP := pair{name: "HTTP", master: master.HTTP(), other: other.HTTP()}
	differences, err := overHTTP.compareAll(ctx, calls)
	if err != nil {
		return nil, err
	}
	// Dialled only now: a WebSocket that nobody reads for a minute is closed by geth.
	sockets, err := dial(ctx, master, other)
	if err != nil {
		return nil, err
	}
	found, err := sockets.compareAll(ctx, calls)
	return append(differences, found...), err
}

type pair struct {
	name          string
	master, other harness.Transport
}

func dial(ctx context.Context, master, other harness.Endpoints) (pair, error) {
	left, err := harness.DialWebSocket(ctx, master.WSURL())
	if err != nil {
		return pair{}, err
	}
	right, err := harness.DialWebSocket(ctx, other.WSURL())
	if err != nil {
		left.Close()
		return pair{}, err
	}
	return pair{name: "WebSocket", master: left, other: right}, nil
}

// compareAll asks every question once by itself and once in a batch, and closes the transports.
func (p pair) compareAll(ctx context.Context, calls []harness.Call) ([]Difference, error) {
	defer p.master.Close()
	defer p.other.Close()
	differences, err := p.compareEach(ctx, calls)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	found, err := p.compareBatches(ctx, calls)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return append(differences, found...), nil
}

func (p pair) compareEach(ctx context.Context, calls []harness.Call) ([]Difference, error) {
	var differences []Difference
	for i, call := range calls {
		request, err := call.Encode(i + 1)
		if err != nil {
			return nil, err
		}
		difference, err := p.compare(ctx, call, request)
		if err != nil {
			return nil, err
		}
		if difference != nil && Exempt[call.Method] == "" {
			differences = append(differences, *difference)
		}
	}
	return differences, nil
}

// batchSize stays below the number of requests that geth allows in a batch.
const batchSize = 50

func (p pair) compareBatches(ctx context.Context, calls []harness.Call) ([]Difference, error) {
	var (
		differences []Difference
		batch       []harness.Call
	)
	for i, call := range calls {
		if Exempt[call.Method] == "" {
			batch = append(batch, call)
		}
		if len(batch) < batchSize && i < len(calls)-1 {
			continue
		}
		request, err := harness.EncodeBatch(batch)
		if err != nil {
			return nil, err
		}
		summary := harness.Call{Method: fmt.Sprintf("batch of %d from %s", len(batch), batch[0])}
		difference, err := p.compare(ctx, summary, request)
		if err != nil {
			return nil, err
		}
		if difference != nil {
			differences = append(differences, *difference)
		}
		batch = nil
	}
	return differences, nil
}

func (p pair) compare(ctx context.Context, call harness.Call, request []byte) (*Difference, error) {
	left, err := p.master.Send(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("master: %.200s: %w", call, err)
	}
	right, err := p.other.Send(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("other: %.200s: %w", call, err)
	}
	if bytes.Equal(left, right) {
		return nil, nil
	}
	return &Difference{Transport: p.name, Call: call, Master: left, Other: right}, nil
}

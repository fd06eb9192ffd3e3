package main

import "context"

func newLatencyFigure() *figure {
	f := newFigure("latency", "from the frame of a head to the replica's newHeads notification over WebSocket, three brokers with acks=all, a head each second")
	f.note("p50 and p99 without more words: from the journal write of the head, as the lag figure has it on the embedded broker")
	f.lagNotes()
	return f
}

// latency is the lag figure on Apache Kafka.
func (b *bench) latency(ctx context.Context) ([]*figure, error) {
	if !b.wants("latency") {
		return nil, nil
	}
	return b.lagOf(ctx, newLatencyFigure())
}

// Package schedule keeps a cluster's snapshots younger than what Kafka retains: it makes one every interval, verifies it,
// prunes, watches the headroom, alerts, and can extend the topic's retention while snapshots fail.
//
// Headroom is the time until Kafka may drop the frame that a replica started from the newest usable snapshot reads first.
//
// Beside the snapshots, in Options.Notes:
//
//	CLUSTER/leases/schedule.json   the one scheduler at work; others stand by
//	CLUSTER/schedule/state.json    the last runs, an extended retention's original, the alerts that hold (State)
package schedule

// Package snapshot takes, keeps, verifies and restores copies of a chaindata directory, each with the position in the
// change log from which a replica goes on.
//
// Layout of a store, below the cluster's name:
//
//	CLUSTER/snapshots/ID/manifest.json   written last: without it there is no snapshot
//	CLUSTER/snapshots/ID/verified.json   written by Verify: the snapshot is usable
//	CLUSTER/objects/…                    immutable content that snapshots share
//	CLUSTER/leases/NAME.json             who creates or prunes at the moment
package snapshot

package replica

import (
	"bytes"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// LocalKey is a key, or a prefix of keys, that belongs to each database alone: it is not applied from the stream, and
// whole-database comparisons leave it out.
type LocalKey struct {
	// Key is the key itself, or its prefix when Prefix is set.
	Key []byte
	// Prefix says that every key beginning with Key is local, except those of 32 bytes: trie nodes of the hash scheme
	// are stored under their bare hash, and a hash may begin with anything.
	Prefix bool
	// Reason is why the key is local.
	Reason string
}

// headsKey holds LastHeader, LastFast and LastBlock as the stream last set them (3 × 32 bytes), in the same LevelDB
// batch. geth's own SetCanonical and SetHead walk the same markers step by step; a crash in between leaves one
// of the steps behind, and this record tells so.
var headsKey = []byte("drover-heads")

var uncleanShutdownKey = []byte("unclean-shutdown")

// LocalKeys is the one list of keys that are not replicated (design.md §4, I7).
var LocalKeys = []LocalKey{
	{Key: uncleanShutdownKey, Reason: "geth's record of its own process's starts and crashes"},
	{Key: []byte("fm-"), Prefix: true, Reason: "the log index: each geth builds its own, at its own pace and with its own range"},
	{Key: []byte("TransactionIndexTail"), Reason: "how far back this geth's transaction indexer got; `geth import` runs without an indexer and leaves none"},
	{Key: changelog.PositionKey, Reason: "how far this database applied the change log"},
	{Key: chaindata.VoidKey, Reason: "fills a sequence that goleveldb leaves unused when it opens a database; no database holds it"},
	{Key: headsKey, Reason: "the head markers as the stream last set them, to repair a crash of the embedded geth"},
}

// IsLocalKey says whether a key is on the list of LocalKeys.
func IsLocalKey(key []byte) bool {
	if len(key) == 32 {
		return false
	}
	switch {
	case len(key) == 0:
		return false
	case key[0] != 'u' && key[0] != 'f' && key[0] != 'T' && key[0] != 'd':
		return false // a test holds this shortcut against the list
	}
	for i := range LocalKeys {
		l := &LocalKeys[i]
		if l.Prefix && bytes.HasPrefix(key, l.Key) || !l.Prefix && bytes.Equal(key, l.Key) {
			return true
		}
	}
	return false
}

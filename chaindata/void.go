package chaindata

import (
	"encoding/binary"
	"errors"
	"io/fs"
)

// VoidKey is the key that a void batch deletes. No database has it.
var VoidKey = []byte("drover-void")

// voidBatch fills the one sequence that goleveldb leaves unused when it recovers journals at open (State.Reopened): a
// batch of one operation that deletes a key that is never there. So the stream has no gap, and receivers no exception.
func voidBatch(seq uint64) Batch {
	data := make([]byte, batchHeaderSize, batchHeaderSize+2+len(VoidKey))
	binary.LittleEndian.PutUint64(data, seq)
	binary.LittleEndian.PutUint32(data[8:], 1)
	data = append(data, opDelete, byte(len(VoidKey)))
	data = append(data, VoidKey...)
	return Batch{First: seq, Count: 1, Data: data}
}

// explains tells whether the gap of one sequence before the first batch of a journal is goleveldb's own, by the
// manifests: the database was opened with this journal as its first (each open starts a manifest, and its record names
// the journal and the sequence at open), that sequence is the missing one, and the journal of the last batch seen was
// still to be replayed then, by the last word of the manifest before.
// Anything less is a hole: a batch of one large operation that went past the journal looks the same from the sequences.
func (s *spool) explains(missing, journal, lastJournal uint64) bool {
	s.mu.Lock()
	manifests := append([]uint64(nil), s.manifests...)
	s.mu.Unlock()
	var before *session
	for _, num := range manifests {
		opened := false
		state, _, err := readManifest(s.manifestPath(num), func(one session) {
			if one.hasJournal && one.hasSequence && one.journal == journal && one.sequence == missing {
				opened = true
			}
		})
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				s.log.Warn("cannot read a manifest", "file", s.manifestPath(num), "err", err)
			}
			before = nil
			continue
		}
		if opened {
			return before != nil && before.hasJournal && before.journal <= lastJournal
		}
		before = &state
	}
	return false
}

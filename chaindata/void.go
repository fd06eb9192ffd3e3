package chaindata

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
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
// manifests; each open of the database starts one. It is, when
//   - one of them was started after the journal of the last batch seen, and says that the database stood at the missing
//     sequence when it was opened, with a journal up to this one as its first; and
//   - the manifest before it ended below the missing sequence, with the journal of the last batch seen still to be
//     replayed. So that open did replay the last batch, which makes the sequence void.
//
// Anything less is a hole: one large operation that went past the journal looks the same from the sequences.
func (s *spool) explains(missing, journal, lastJournal uint64) bool {
	s.mu.Lock()
	manifests := slices.Clone(s.manifests)
	s.mu.Unlock()
	var before *session
	for _, num := range manifests {
		opened := false
		state, _, err := readManifest(s.manifestPath(num), func(one session) {
			if one.hasJournal && one.hasSequence && one.sequence == missing && one.journal > lastJournal && one.journal <= journal {
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
		if opened && num > lastJournal && before != nil &&
			before.hasJournal && before.journal <= lastJournal && before.sequence < missing {
			return true
		}
		before = &state
	}
	return false
}

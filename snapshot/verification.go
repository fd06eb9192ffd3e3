package snapshot

import "time"

// Verification is verified.json: what was checked before a snapshot counted as usable.
type Verification struct {
	Format        int       `json:"format"`
	Manifest      string    `json:"manifest"` // SHA-256 of the manifest.json that was verified
	At            time.Time `json:"at"`
	Node          string    `json:"node"`
	DroverVersion string    `json:"droverVersion,omitempty"`
	Files         int       `json:"files"`
	Bytes         int64     `json:"bytes"` // all of them read and compared with their checksums
	Tables        int       `json:"tables"`
	TrieNodes     uint64    `json:"trieNodes"` // found by the walk of the head's state
	Accounts      uint64    `json:"accounts"`
	Slots         uint64    `json:"slots"`
	Codes         uint64    `json:"codes"`
	Sample        float64   `json:"sample"`             // the part of the state that was walked, 1 for all of it
	Replayed      uint64    `json:"replayed,omitempty"` // the head after some of the topic was replayed; 0: it was not
	Seconds       float64   `json:"seconds"`
	// Sums is the SHA-256 of sums.zst, which holds the checksums that Create could not know: those of hard links.
	Sums string `json:"sums,omitempty"`
}

// objectSum is a line of sums.zst.
type objectSum struct {
	Object string `json:"object"`
	SHA256 string `json:"sha256"`
}

package snapshot

import (
	"fmt"
	"path/filepath"
	"testing"
)

// kinds of stores that Create treats differently.
var storeKinds = map[string]func(*CreateOptions){
	"hard links": nil,
	"copies":     func(o *CreateOptions) { o.NoHardLinks = true },
	"compressed": func(o *CreateOptions) { o.NoHardLinks, o.Compression = true, CompressZstd },
}

func TestSnapshotsUnderFullWriteLoadAreTheSourceAtTheirSequence(t *testing.T) {
	t.Parallel()
	for name, tune := range storeKinds {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			src := newSource(t, filepath.Join(base, "datadir"))
			src.freeze(100_000)
			src.write(200)
			store := openDir(t, filepath.Join(base, "store"))
			stop := src.writeUntil()
			defer stop()
			var made []CreateResult
			for range 4 {
				made = append(made, src.create(store, tune))
			}
			stop()
			for i, res := range made {
				t.Logf("block %d, sequence %d: %d objects, %d links, moved %d, reused %d, %v", res.Manifest.Head.Number,
					res.Manifest.Sequence, res.Objects, res.Links, res.Moved, res.Reused, res.Elapsed)
				s := mustVerify(t, store, res.Manifest.ID)
				if v := s.Verified; v.Tables == 0 || v.Accounts != 60 || v.Slots != 240 || v.Codes != 20 {
					t.Errorf("verified: %s", asJSON(v))
				}
				datadir := filepath.Join(base, fmt.Sprint("restored", i))
				mustRestore(t, store, datadir, res.Manifest.ID)
				src.sameAt(datadir, res.Manifest)
			}
			nothingLeft(t, base)
		})
	}
}

package loginspect

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// errFound ends a scan early.
var errFound = errors.New("found")

// findBlock returns the offset of the first frame that made a block of at least that height canonical. Heights rise with
// offsets, reorgs aside, so it searches by halves: O(log n) scans to the next head after an offset.
func findBlock(ctx context.Context, log Log, number uint64, first, next int64) (int64, error) {
	var failed error
	heads := int(next - first)
	index := sort.Search(heads, func(i int) bool {
		if failed != nil {
			return true
		}
		height, _, ok, err := nextHead(ctx, log, first+int64(i), next)
		failed = err
		return !ok || height >= number
	})
	if failed != nil {
		return 0, failed
	}
	height, offset, ok, err := nextHead(ctx, log, first+int64(index), next)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, fmt.Errorf("the change log has no block %d yet (offsets %d to %d)", number, first, next)
	case height > number:
		return 0, fmt.Errorf("block %d is older than the change log, whose first head is %d at offset %d", number, height, offset)
	}
	return offset, nil
}

// nextHead scans from an offset to the next frame that makes a block canonical.
func nextHead(ctx context.Context, log Log, from, next int64) (height uint64, offset int64, ok bool, err error) {
	describe := &describer{}
	err = log.ReadRange(ctx, from, next, func(entry changelog.Entry) error {
		row := describe.row(entry)
		if row.Puts[chaindata.CanonicalHash.String()] > 0 && row.Block != nil {
			height, offset, ok = *row.Block, entry.Offset, true
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return height, offset, ok, err
}

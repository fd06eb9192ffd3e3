package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"
)

// generate runs tools/chaingen, so that the chain is byte for byte what it makes.
func generate(ctx context.Context, dir string, blocks, txs int) error {
	c := exec.CommandContext(ctx, "go", "run", "github.com/drover-io/drover/tools/chaingen",
		"--out", dir, "--blocks", fmt.Sprint(blocks), "--txs", fmt.Sprint(txs), "--seed", "1")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("chaingen: %w\n%s", err, out)
	}
	return nil
}

// readBlocks reads the first n blocks of a file that chaingen wrote.
func readBlocks(path string, n int) ([]*types.Block, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stream := rlp.NewStream(file, 0)
	blocks := make([]*types.Block, 0, n)
	for len(blocks) < n {
		block := new(types.Block)
		if err := stream.Decode(block); err != nil {
			return nil, fmt.Errorf("%s: block %d of %d that are needed: %w", path, len(blocks)+1, n, err)
		}
		blocks = append(blocks, block)
	}
	return blocks, nil
}

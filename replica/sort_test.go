package replica

import (
	"bytes"
	"fmt"
	"math/rand"
	"testing"

	"github.com/drover-io/drover/chaindata"
)

func TestSortingAGroupKeepsTheLastOperationOfEachKey(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	var s sorter
	for round := range 200 {
		var c change
		want := make(map[string]string)
		for i := range random.Intn(300) {
			// Keys of all lengths around the 8 bytes that are compared first.
			key := bytes.Repeat([]byte{byte(random.Intn(3))}, random.Intn(12))
			if random.Intn(3) == 0 {
				c.delete(key)
				want[string(key)] = "deleted"
			} else {
				value := fmt.Sprint(i)
				c.put(key, []byte(value))
				want[string(key)] = value
			}
		}
		sorted, count := s.sort(c.data)
		got := make(map[string]string)
		var last []byte
		ops := 0
		for op := range (chaindata.Batch{Data: append(make([]byte, batchHeader), sorted...)}).Ops() {
			if ops > 0 && bytes.Compare(last, op.Key) >= 0 {
				t.Fatalf("round %d: %x comes behind %x", round, op.Key, last)
			}
			last, ops = op.Key, ops+1
			if got[string(op.Key)] = string(op.Value); op.Delete {
				got[string(op.Key)] = "deleted"
			}
		}
		if len(got) != len(want) || ops != count {
			t.Fatalf("round %d: %d keys in %d operations (%d announced), want %d", round, len(got), ops, count, len(want))
		}
		for key, value := range want {
			if got[key] != value {
				t.Fatalf("round %d: %x is %q, want %q", round, key, got[key], value)
			}
		}
	}
}

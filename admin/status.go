package admin

import (
	"context"
	"time"
)

// Status is what a role says about itself: the answer of /status, and what /readyz decides by. The JSON names are a
// contract with load balancers and operators' scripts. A figure that is not known is null, never zero: a reader that
// compares it with a limit must not mistake "unknown" for "none".
type Status struct {
	// Role is the command's name: master, replica, broker, …
	Role string `json:"role"`
	// Cluster is the cluster's name as given by --cluster.
	Cluster string `json:"cluster"`
	// Timeline is the change log's timeline that the role stands on; 0 while it is not known yet.
	Timeline uint64 `json:"timeline"`
	// Sequence is the last LevelDB sequence published (master) or applied (replica); 0 while it is not known yet.
	Sequence uint64 `json:"sequence"`
	// Offset is the Kafka offset of the frame that carried Sequence; -1 while it is not known yet.
	Offset int64 `json:"offset"`
	// Head, Safe and Finalized are the blocks under geth's labels of the same names; nil where there is none.
	Head      *Block `json:"head"`
	Safe      *Block `json:"safe"`
	Finalized *Block `json:"finalized"`
	// Lag says how far behind its source the role is.
	Lag Lag `json:"lag"`
	// Ready says whether the role may get traffic now; Reasons says why not, a short sentence each, empty when ready.
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
	// Extra holds what one role alone has to say. It has to marshal to JSON.
	Extra any `json:"extra,omitempty"`
}

// Block names a block of the chain.
type Block struct {
	// Number is the block's height.
	Number uint64 `json:"number"`
	// Hash is the block's hash, 0x and 64 hex digits.
	Hash string `json:"hash"`
	// Time is the block's own timestamp in seconds since 1970; 0 while it is not known.
	Time uint64 `json:"time"`
}

// Age returns how long before now the block's timestamp lies, and false when the timestamp is not known.
func (b *Block) Age(now time.Time) (time.Duration, bool) {
	if b == nil || b.Time == 0 {
		return 0, false
	}
	return now.Sub(time.Unix(int64(b.Time), 0)), true
}

// Lag is a distance behind the source: of a replica behind the master, of the change log behind the master's
// journals. A nil field is not known.
type Lag struct {
	// Frames counts frames (replica: messages of the topic not applied yet).
	Frames *int64 `json:"frames"`
	// Blocks counts blocks between the source's head and the own head.
	Blocks *int64 `json:"blocks"`
	// Seconds is the age of the oldest write that has not arrived yet, 0 when nothing waits.
	Seconds *float64 `json:"seconds"`
}

// Source is the role behind the endpoints. Status may be called by several requests at once, must not block on the
// role's work, and returns a value that the caller owns.
type Source interface {
	Status(ctx context.Context) Status
}

package chaindata

import "errors"

var errHeader = errors.New("not a block header")

// headerRefs takes parent hash and state root out of a header's RLP: items 0 and 3 of a list, 32 bytes each.
func headerRefs(rlp []byte) (parent, root [32]byte, err error) {
	body, ok := rlpList(rlp)
	if !ok {
		return parent, root, errHeader
	}
	for i := 0; i <= 3; i++ {
		item, rest, ok := rlpString(body)
		if !ok {
			return parent, root, errHeader
		}
		if i == 0 || i == 3 {
			if len(item) != 32 {
				return parent, root, errHeader
			}
			if i == 0 {
				copy(parent[:], item)
			} else {
				copy(root[:], item)
			}
		}
		body = rest
	}
	return parent, root, nil
}

// rlpList returns the content of the list that b starts with.
func rlpList(b []byte) ([]byte, bool) {
	switch {
	case len(b) == 0 || b[0] < 0xc0:
		return nil, false
	case b[0] <= 0xf7:
		n := int(b[0] - 0xc0)
		return b[1:], len(b)-1 >= n
	}
	n := int(b[0] - 0xf7)
	if len(b) < 1+n {
		return nil, false
	}
	return b[1+n:], true
}

// rlpString returns the string that b starts with, and what follows it. Strings of a header are shorter than 64 KiB.
func rlpString(b []byte) (item, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	n, at := 0, 1
	switch c := b[0]; {
	case c < 0x80:
		return b[:1], b[1:], true
	case c <= 0xb7:
		n = int(c - 0x80)
	case c == 0xb8 && len(b) > 1:
		n, at = int(b[1]), 2
	case c == 0xb9 && len(b) > 2:
		n, at = int(b[1])<<8|int(b[2]), 3
	default:
		return nil, nil, false
	}
	if len(b)-at < n {
		return nil, nil, false
	}
	return b[at : at+n], b[at+n:], true
}

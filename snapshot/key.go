package snapshot

import (
	"fmt"
	"strings"
)

// checkKey tells whether a key is of the form that Store describes. It keeps what a store makes of keys (paths, URLs) inside the store.
func checkKey(key string) error {
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment[0] == '.' || len(segment) > 200 {
			return fmt.Errorf("key %q: an empty, hidden or too long part", key)
		}
		for _, c := range []byte(segment) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("._-=+", c) >= 0:
			default:
				return fmt.Errorf("key %q: %q is not allowed", key, c)
			}
		}
	}
	return nil
}

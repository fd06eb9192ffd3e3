package replica

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// servedStale holds that with StaleServe neither a silent master nor an old head keeps the ports shut, and that answers
// say so; the recorded chain's blocks are old and its master has ended.
func servedStale(t *testing.T, rec recorded) {
	run := startReplica(t, rec.m.log, rec.fresh(t), func(o *Options) { o.Stale, o.MaxHeadAge = StaleServe, time.Second })
	run.reaches(rec.m.last)
	eventually(t, 30*time.Second, "the port to open", func() error {
		if s := run.Status(context.Background()); !s.Ready || run.HTTPAddr() == "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if stale := run.Status(context.Background()).Extra.(Extra).Stale; len(stale) == 0 {
		t.Fatal("the data is not stale: the fault did not fire")
	}
	body := `{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}`
	response, err := http.Post("http://"+run.HTTPAddr(), "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if why := response.Header.Get(StaleHeader); !strings.Contains(why, "head age") || response.StatusCode != http.StatusOK {
		t.Errorf("status %s, %s %q", response.Status, StaleHeader, why)
	}
	run.stop()
}

package replica

import (
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
)

// A master that died in the middle of a batch leaves parts behind the last whole one; nobody will send the rest.
func TestUntilSyncedEndsBehindABatchThatWasNeverFinished(t *testing.T) {
	m := newMaster(t, newForge(t).file())
	datadir := t.TempDir()
	m.copyTo(datadir)
	m.capture()
	m.finish()
	parts := changelog.SplitBatch(1, m.last+1, 1, make([]byte, 30), 10, time.Now())
	m.log.append(parts[:2]...)
	r := startReplica(t, m.log, datadir, func(o *Options) { o.UntilSynced = true })
	r.wait()
	if r.err != nil {
		t.Fatal(r.err)
	}
	if at := r.status().at; at.Sequence != m.last || at.Offset >= m.log.next()-1 {
		t.Errorf("the position is %s, the unfinished batch begins at offset %d", at, m.log.next()-2)
	}
}

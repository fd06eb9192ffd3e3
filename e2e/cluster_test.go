package e2e

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
)

// cluster is a cluster on an embedded broker.
type cluster struct {
	rig.Cluster
	broker *harness.Process
}

// newCluster starts a broker and makes a master's datadir with the chain's genesis block, if there is a chain.
func newCluster(t *testing.T, f *rig.Chain) *cluster {
	t.Helper()
	c := &cluster{Cluster: rig.Cluster{Name: "test", Dir: rig.Workdir(t), Geth: rig.Geth(t)}}
	c.Master = filepath.Join(c.Dir, "master")
	c.startBroker(t)
	if f != nil {
		f.Initialise(t, c.Geth, c.Master)
	}
	return c
}

func (c *cluster) startBroker(t *testing.T) {
	t.Helper()
	port := rig.Port(t)
	c.Brokers = []string{rig.Localhost(port)}
	c.broker = rig.Start(t, c.Command("broker", rig.Drover(t), "broker", "--listen", c.Brokers[0], "--data-dir", filepath.Join(c.Dir, "broker")))
	rig.Until(t, time.Minute, func(ctx context.Context) error { return dial(ctx, port) })
}

// anotherBroker is a cluster of the same name with an empty broker.
func (c *cluster) anotherBroker(t *testing.T, name string) *cluster {
	t.Helper()
	other := *c
	other.Dir = filepath.Join(c.Dir, name)
	rig.MakeDir(t, other.Dir)
	other.startBroker(t)
	return &other
}

// dial is nil when somebody listens on the port.
func dial(ctx context.Context, port int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", rig.Localhost(port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// kills is how often the kill loops kill.
func kills(t *testing.T) int { t.Helper(); return rig.Number(t, "DROVER_E2E_KILLS", 20) }

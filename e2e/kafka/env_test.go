package kafkae2e

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/drover-io/drover/e2e/harness/rig"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

func TestMain(m *testing.M) {
	code := rig.Main(m)
	if shared.Cluster != nil {
		shared.Close()
	}
	os.Exit(code)
}

// shared is the Kafka of the tests that do no harm to brokers: three of them start once.
var shared struct {
	once sync.Once
	*localkafka.Cluster
	err error
}

// stranger is a user without a right.
var stranger = localkafka.User{Name: "stranger", Password: "stranger-secret"}

const startLimit = 3 * time.Minute // on a machine that runs other tests meanwhile

func sharedKafka(t *testing.T) *localkafka.Cluster {
	t.Helper()
	shared.once.Do(func() {
		shared.Cluster, shared.err = localkafka.New(localkafka.Options{
			Brokers: 3, StartTimeout: startLimit,
			Properties: localkafka.FastRetention(), // acts on the topics whose own retention is short
			Listeners:  []localkafka.Listener{localkafka.Plaintext, localkafka.TLS, localkafka.ExpiredTLS, localkafka.SASLTLS},
			Users:      []localkafka.User{localkafka.DefaultUser, stranger},
			ACLs:       true, SuperUsers: []string{"ANONYMOUS", localkafka.DefaultUser.Name},
		})
		if shared.err == nil {
			shared.err = shared.Start(context.Background())
		}
	})
	if shared.err != nil {
		t.Fatalf("local Kafka: %v", shared.err)
	}
	shared.QuoteTo(t)
	return shared.Cluster
}

// cluster is a cluster on three real brokers.
type cluster struct {
	rig.Cluster
	kafka *localkafka.Cluster
}

// newCluster makes a master's datadir with the chain's genesis block, and a name for its topic.
func newCluster(t *testing.T, name string, f *rig.Chain, kafka *localkafka.Cluster) *cluster {
	t.Helper()
	c := &cluster{kafka: kafka, Cluster: rig.Cluster{
		Name: name, Dir: rig.Workdir(t), Geth: rig.Geth(t), Brokers: kafka.Bootstrap(localkafka.Plaintext),
		ReplicaFlags: rig.Fresh, // the chains have the clock of their blocks, which may stand still
	}}
	c.Master = filepath.Join(c.Dir, "master")
	f.Initialise(t, c.Geth, c.Master)
	return c
}

// at is the cluster with another datadir for its master.
func (c *cluster) at(t *testing.T, datadir string) *cluster {
	t.Helper()
	return &cluster{Cluster: *c.At(t, datadir), kafka: c.kafka}
}

// requireEqual brings replicas' datadirs to the topic's end and compares them with the master's; nobody has them open.
func (c *cluster) requireEqual(t *testing.T, datadirs ...string) {
	t.Helper()
	for _, datadir := range datadirs {
		c.Sync(t, 3*time.Minute, datadir)
		rig.RequireEqual(t, c.Master, datadir)
	}
}

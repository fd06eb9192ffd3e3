package kafkae2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/e2e/harness/rig"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// entry is a way to reach a Kafka that asks who comes.
type entry struct {
	listener localkafka.Listener
	flags    []string
}

// Fault 20: wrong password, expired or foreign certificate, no rights, the wrong port: master, replica and log inspect
// each end at once with one line that says what is wrong. The right user gets through, over TLS.
func TestWhoMayNotEnterRealKafkaIsToldInOneLine(t *testing.T) {
	f := rig.Generate(t, rig.Size{Blocks: 8, Txs: 10})
	c := newCluster(t, "rights", f, sharedKafka(t))
	replica := c.CopyAtRest(t, "replica", 1)
	files := c.kafka.Files()
	user := func(u localkafka.User) []string {
		file := filepath.Join(c.Dir, u.Name+u.Password)
		if err := os.WriteFile(file, []byte(u.Password), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"--kafka.tls", "--kafka.tls.ca", files.CA, "--kafka.sasl.mechanism", "SCRAM-SHA-512",
			"--kafka.sasl.user", u.Name, "--kafka.sasl.password-file", file}
	}
	right := c.through(entry{localkafka.SASLTLS, user(localkafka.DefaultUser)})
	right.ImportUnderCapture(t, time.Minute, f.Path())
	right.requireEqual(t, replica)

	before := rig.Must(chaindata.Inspect(harness.Chaindata(c.Master)))(t).Sequence
	for _, test := range []struct {
		name  string
		entry entry
		says  string
	}{
		{"wrong password", entry{localkafka.SASLTLS, user(localkafka.User{Name: localkafka.DefaultUser.Name, Password: "wrong"})}, "check user and password"},
		{"no rights", entry{localkafka.SASLTLS, user(stranger)}, "grant the user"},
		{"expired certificate", entry{localkafka.ExpiredTLS, []string{"--kafka.tls", "--kafka.tls.ca", files.CA}}, "renew it there"},
		{"foreign certificate", entry{localkafka.TLS, []string{"--kafka.tls", "--kafka.tls.ca", files.OtherCA}}, "--kafka.tls.ca"},
		{"plaintext to a TLS port", entry{localkafka.TLS, nil}, "--kafka.tls"},
	} {
		t.Run(test.name, func(t *testing.T) {
			wrong := c.through(test.entry)
			for _, command := range []harness.Command{
				wrong.MasterCommand(t, rig.Port(t), harness.ImportArgs(c.Master, f.Path())),
				wrong.ReplicaCommand(t, replica, rig.Port(t), "--until-synced"),
				wrong.InspectCommand(t),
			} {
				rig.RequireExit(t, 1, command, test.says)
			}
		})
	}
	if after := rig.Must(chaindata.Inspect(harness.Chaindata(c.Master)))(t).Sequence; after != before {
		t.Errorf("geth was started all the same: the database went from sequence %d to %d", before, after)
	}
}

// through is the cluster by another way into its Kafka.
func (c *cluster) through(e entry) *cluster {
	other := *c
	other.Brokers, other.KafkaFlags = c.kafka.Bootstrap(e.listener), e.flags
	return &other
}

// Package localkafka runs a real Apache Kafka on this machine, for tests and for people without Docker: one or three
// KRaft brokers on loopback, each a process of its own that can be killed, paused and restarted on the same ports and
// data. Production code does not import it.
//
//	cluster := localkafka.ForTest(t, localkafka.Options{Brokers: 3})
//	brokers := cluster.Bootstrap(localkafka.Plaintext)
//	leader, _, err := cluster.Leader(ctx, "drover.main.log", 0)
//	err = cluster.Kill(leader) // SIGKILL, returns when the process is gone
//
// The brokers come from Maven Central (see Install), run on Java 17 or newer, and end with the program that started
// them, however that program ends (on Linux; elsewhere, unless it is killed by SIGKILL). DESIGN.md says why it is
// built this way.
package localkafka

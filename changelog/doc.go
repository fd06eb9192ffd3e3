// Package changelog is Drover's change log: the Kafka topic that carries the
// batches of one database's journal, in order, from one master to any number of
// replicas.
//
// The package has three layers, each usable without the one below it:
//
//   - [Frame], [Position] and their bytes (no I/O),
//   - [Sequencer], the state machine that turns frames into batches and upholds
//     the order (I1) and the single writer (I4) of the design; no I/O either,
//   - [Log] with its [Publisher] and [Reader], which move frames over Kafka
//     (segmentio/kafka-go, imported by no other package).
//
// # Frame format, version 1
//
// A Kafka message's value is one frame; its key is empty. Integers are little
// endian, as they are in LevelDB's journal.
//
//	offset  size  field
//	     0     4  magic "DRVR"
//	     4     1  format version, 1
//	     5     1  kind: 1 batch, 2 heartbeat, 3 timeline start
//	     6     2  reserved, zero
//	     8     8  timeline, from 1
//	    16     8  first sequence
//	    24     4  count: sequences of the whole batch; 0 for other kinds
//	    28     4  part, from 1
//	    32     4  parts
//	    36     4  CRC-32C of the whole batch, all parts joined
//	    40     8  time, nanoseconds since 1970 UTC
//	    48     4  payload length
//	    52     4  CRC-32C of bytes 0 to 51 and the payload
//	    56     n  payload
//
// Bytes 0 to 4 keep their place in every version to come. History: version 1
// (2026-11) is the first. FORMAT.md says the same at more length.
package changelog

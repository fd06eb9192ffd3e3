// Package kafkae2e holds the end-to-end tests on a real Apache Kafka: real geth, the real binary, three brokers that are
// killed, paused and led around, and comparisons of whole databases. DESIGN.md says what each file is for.
package kafkae2e

// Package localserver runs a server of another project as a process of a test: on a loopback port that stays its own, so
// that it can be killed, paused and started again, and never longer than the program that started it. tools/moto and
// tools/versitygw are built on it. Production code does not import it.
package localserver

// Package rig sets up what end-to-end tests act on: a master and its replicas as real processes on whatever Kafka there
// is, their chain and their datadirs. Unlike package harness below it, it knows of package testing: what goes wrong here
// fails the test.
package rig

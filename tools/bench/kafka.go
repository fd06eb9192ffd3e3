package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/drover-io/drover/changelog"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// newKafka starts three brokers of Apache Kafka. Unlike those of the tests they may use the JVM's optimizing compiler and
// a heap of Kafka's usual size.
func (b *bench) newKafka(ctx context.Context) (*cluster, error) {
	c := &cluster{data: filepath.Join(b.dir, fmt.Sprintf("kafka-%d", b.clusters))}
	var err error
	c.kafka, err = localkafka.New(localkafka.Options{
		Brokers: 3, Dir: c.data, HeapMB: 1024, JVMFlags: []string{"-XX:TieredStopAtLevel=4"}, StartTimeout: 3 * time.Minute,
		// Deleted topics go at once, or those of a few runs fill the disk.
		Properties: map[string]string{"log.segment.delete.delay.ms": "1000"},
	})
	if err != nil {
		return nil, err
	}
	b.say("starting three brokers of Apache Kafka %s", localkafka.Version)
	if err := c.kafka.Start(ctx); err != nil {
		return nil, errors.Join(err, b.end(c))
	}
	c.addr = strings.Join(c.kafka.Bootstrap(localkafka.Plaintext), ",")
	return c, nil
}

// topic is a change log of its own, for one measurement.
type topic struct {
	*changelog.Log
	kafka *localkafka.Cluster
}

func (b *bench) newTopic(ctx context.Context, c *cluster, name string) (*topic, error) {
	log, err := openLog(ctx, c.addr, name)
	if err != nil {
		return nil, err
	}
	t := &topic{Log: log, kafka: c.kafka}
	_, findings, err := log.Ensure(ctx, changelog.TopicSpec{})
	if err == nil && len(findings) > 0 {
		err = fmt.Errorf("the topic is not as the design wants it: %v", findings)
	}
	if err == nil {
		err = c.kafka.WaitInSync(ctx, log.Topic(), 0, 3)
	}
	if err != nil {
		return nil, errors.Join(err, t.remove(ctx))
	}
	return t, nil
}

// remove deletes the topic.
func (t *topic) remove(ctx context.Context) error {
	admin := t.kafka.Admin()
	if transport, ok := admin.Transport.(*kafka.Transport); ok {
		defer transport.CloseIdleConnections()
	}
	answer, err := admin.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{t.Topic()}})
	if err == nil {
		err = answer.Errors[t.Topic()]
	}
	return errors.Join(err, t.Close())
}

// stored is what the topic takes on a broker's disk: the record batches as they came over the wire. The largest of the
// three, since the last bytes may not have reached all.
func (t *topic) stored() (largest int64, err error) {
	for _, id := range t.kafka.IDs() {
		var size int64
		dir := filepath.Join(t.kafka.DataDir(id), t.Topic()+"-0")
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".log" {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				size += info.Size()
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		largest = max(largest, size)
	}
	return largest, nil
}

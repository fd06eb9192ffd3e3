package localkafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
)

const (
	pollEvery = 50 * time.Millisecond
	// askLimit bounds one question to one broker, which may have been paused by another goroutine.
	askLimit = 2 * time.Second
)

// mechanism signs in as the brokers themselves do.
func (c *Cluster) mechanism() plain.Mechanism {
	return plain.Mechanism{Username: internalUser, Password: c.state.Secret}
}

// Admin is a client that ACLs do not hold back, whatever listeners the cluster has. The caller closes its idle
// connections (Transport.(*kafka.Transport).CloseIdleConnections).
func (c *Cluster) Admin() *kafka.Client {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.addr(internal))
	}
	return &kafka.Client{
		Addr:    kafka.TCP(addrs...),
		Timeout: 10 * time.Second,
		Transport: &kafka.Transport{
			SASL:        c.mechanism(),
			Dial:        dialImpatient,
			DialTimeout: askLimit,
			MetadataTTL: 200 * time.Millisecond,
			ClientID:    "drover-localkafka",
		},
	}
}

// ask opens a connection to one broker and no other: kafka.Client would answer from its memory, or ask another.
func (c *Cluster) ask(ctx context.Context, b *broker, question func(*kafka.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	dialer := kafka.Dialer{SASLMechanism: c.mechanism(), ClientID: "drover-localkafka", DialFunc: dialImpatient}
	conn, err := dialer.DialContext(ctx, "tcp", b.addr(internal))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askLimit)); err != nil {
		return err
	}
	return question(conn)
}

// WaitReady returns when each of the brokers ids (none = all) answers and counts itself and the other ids among the
// cluster's. A broker that ends while it is waited for is an error which quotes its log.
func (c *Cluster) WaitReady(ctx context.Context, ids ...int) error {
	if len(ids) == 0 {
		ids = c.IDs()
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.StartTimeout)
	defer cancel()
	for _, id := range ids {
		b, err := c.broker(id)
		if err != nil {
			return err
		}
		err = poll(ctx, func() error {
			if b.live() == nil {
				return final{fmt.Errorf("broker %d ended: %w\n%s", id, ErrNotRunning, c.why(b))}
			}
			return c.ask(ctx, b, func(conn *kafka.Conn) error { return knows(conn, ids) })
		})
		if err != nil {
			return fmt.Errorf("broker %d is not ready (its log is %s): %w", id, c.LogFile(id), err)
		}
	}
	return nil
}

func knows(conn *kafka.Conn, ids []int) error {
	brokers, err := conn.Brokers()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(brokers, func(b kafka.Broker) bool { return b.ID == id }) {
			return fmt.Errorf("broker %d is not registered", id)
		}
	}
	return nil
}

// why quotes what a dead broker said last.
func (c *Cluster) why(b *broker) string {
	out, _ := os.ReadFile(filepath.Join(b.dir, b.name()+".log"))
	log, _ := os.ReadFile(c.LogFile(b.id))
	var errs []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, " ERROR ") || strings.Contains(line, " FATAL ") || strings.HasPrefix(line, "Caused by") {
			errs = append(errs, strings.TrimSpace(line))
		}
	}
	return strings.TrimSpace(complaint(string(out)) + "\n" + lastLines(strings.Join(errs, "\n"), 8))
}

// final is an error that polling cannot mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// poll repeats f until it succeeds or ctx ends; then it returns f's last error as well.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil || errors.As(err, new(final)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// partition asks the brokers in turn, those that answer.
func (c *Cluster) partition(ctx context.Context, topic string, number int) (kafka.Partition, error) {
	last := ErrNotRunning
	for _, b := range c.brokers {
		p := b.live()
		if p == nil || stopped(p.Pid()) {
			continue
		}
		var found kafka.Partition
		last = c.ask(ctx, b, func(conn *kafka.Conn) error {
			partitions, err := conn.ReadPartitions(topic)
			if err != nil {
				return err
			}
			for _, p := range partitions {
				if p.ID == number {
					found = p
					return p.Error
				}
			}
			return fmt.Errorf("%s has no partition %d", topic, number)
		})
		if last == nil {
			return found, nil
		}
	}
	return kafka.Partition{}, fmt.Errorf("read partition %d of %s: %w", number, topic, last)
}

// Leader returns which broker leads a partition and which replicas are in sync. It is the answer of one broker, which
// may lag by some milliseconds; a partition without a leader is an error.
func (c *Cluster) Leader(ctx context.Context, topic string, partition int) (leader int, inSync []int, err error) {
	p, err := c.partition(ctx, topic, partition)
	if err != nil {
		return 0, nil, err
	}
	return p.Leader.ID, brokerIDs(p.Isr), nil
}

// WaitInSync returns when at least n replicas of a partition are in sync, or with an error when ctx ends.
func (c *Cluster) WaitInSync(ctx context.Context, topic string, partition, n int) error {
	return poll(ctx, func() error {
		_, inSync, err := c.Leader(ctx, topic, partition)
		if err == nil && len(inSync) < n {
			err = fmt.Errorf("%v of %s-%d are in sync, want %d", inSync, topic, partition, n)
		}
		return err
	})
}

// MoveLeader makes broker to the leader of a partition that it has a replica of, in order: it waits until the replica
// is in sync, puts it first among the replicas and has the preferred leader elected. It returns when brokers name the
// new leader, or with an error when ctx ends.
func (c *Cluster) MoveLeader(ctx context.Context, topic string, partition, to int) error {
	admin := c.Admin()
	defer admin.Transport.(*kafka.Transport).CloseIdleConnections()
	err := poll(ctx, func() error {
		p, err := c.partition(ctx, topic, partition)
		if err != nil {
			return err
		}
		replicas := brokerIDs(p.Replicas)
		switch {
		case p.Leader.ID == to:
			return nil
		case !slices.Contains(replicas, to):
			return final{fmt.Errorf("broker %d has no replica (replicas: %v)", to, replicas)}
		case !slices.Contains(brokerIDs(p.Isr), to):
			return fmt.Errorf("broker %d is not in sync (in sync: %v)", to, brokerIDs(p.Isr))
		}
		// Some of it goes to whichever broker the metadata names as controller, which may be one that hangs.
		ctx, cancel := context.WithTimeout(ctx, 2*askLimit)
		defer cancel()
		if err := reorder(ctx, admin, topic, partition, replicas, to); err != nil {
			return err
		}
		if err := elect(ctx, admin, topic, partition); err != nil {
			return err
		}
		return fmt.Errorf("broker %d still leads", p.Leader.ID)
	})
	if err != nil {
		return fmt.Errorf("move the leader of %s-%d to broker %d: %w", topic, partition, to, err)
	}
	return nil
}

// reorder puts first at the head of the replicas, which makes it the preferred leader.
func reorder(ctx context.Context, admin *kafka.Client, topic string, partition int, replicas []int, first int) error {
	if replicas[0] == first {
		return nil
	}
	order := []int{first}
	for _, id := range replicas {
		if id != first {
			order = append(order, id)
		}
	}
	resp, err := admin.AlterPartitionReassignments(ctx, &kafka.AlterPartitionReassignmentsRequest{
		Topic:       topic,
		Assignments: []kafka.AlterPartitionReassignmentsRequestAssignment{{PartitionID: partition, BrokerIDs: order}},
		Timeout:     askLimit,
	})
	if err != nil {
		return fmt.Errorf("reorder replicas: %w", err)
	}
	if resp.Error != nil {
		return fmt.Errorf("reorder replicas: %w", resp.Error)
	}
	for _, p := range resp.PartitionResults {
		if p.Error != nil {
			return fmt.Errorf("reorder replicas: %w", p.Error)
		}
	}
	return nil
}

func elect(ctx context.Context, admin *kafka.Client, topic string, partition int) error {
	resp, err := admin.ElectLeaders(ctx, &kafka.ElectLeadersRequest{Topic: topic, Partitions: []int{partition}, Timeout: askLimit})
	if err != nil {
		return fmt.Errorf("elect: %w", err)
	}
	if resp.Error != nil {
		return fmt.Errorf("elect: %w", resp.Error)
	}
	for _, p := range resp.PartitionResults {
		if p.Error != nil && !errors.Is(p.Error, kafka.ElectionNotNeeded) {
			return fmt.Errorf("elect: %w", p.Error)
		}
	}
	return nil
}

func brokerIDs(brokers []kafka.Broker) []int {
	ids := make([]int, 0, len(brokers))
	for _, b := range brokers {
		ids = append(ids, b.ID)
	}
	return ids
}

// Allow gives a user rights on one topic, or on the cluster when topic is "". It returns when the
// controller has accepted them; brokers follow within milliseconds.
func (c *Cluster) Allow(ctx context.Context, user, topic string, operations ...kafka.ACLOperationType) error {
	admin := c.Admin()
	defer admin.Transport.(*kafka.Transport).CloseIdleConnections()
	kind, name := kafka.ResourceTypeTopic, topic
	if topic == "" {
		kind, name = kafka.ResourceTypeCluster, "kafka-cluster"
	}
	var entries []kafka.ACLEntry
	for _, op := range operations {
		entries = append(entries, kafka.ACLEntry{
			ResourceType: kind, ResourceName: name, ResourcePatternType: kafka.PatternTypeLiteral,
			Principal: "User:" + user, Host: "*", Operation: op, PermissionType: kafka.ACLPermissionTypeAllow,
		})
	}
	resp, err := admin.CreateACLs(ctx, &kafka.CreateACLsRequest{ACLs: entries})
	if err != nil {
		return fmt.Errorf("allow %s: %w", user, err)
	}
	if err := errors.Join(resp.Errors...); err != nil {
		return fmt.Errorf("allow %s: %w", user, err)
	}
	return nil
}

// SetTopic changes a setting of a topic. It returns when the controller has accepted it.
func (c *Cluster) SetTopic(ctx context.Context, topic, name, value string) error {
	admin := c.Admin()
	defer admin.Transport.(*kafka.Transport).CloseIdleConnections()
	resp, err := admin.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", name, topic, err)
	}
	for _, resource := range resp.Resources {
		if resource.Error != nil {
			return fmt.Errorf("set %s of %s: %w", name, topic, resource.Error)
		}
	}
	return nil
}

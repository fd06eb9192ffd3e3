package logcheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-io/drover/changelog"
)

// table collects the rows of one run.
type table struct {
	c    *Checker
	d    changelog.Description
	rows []Row
}

func (t *table) add(result Result, check, have, want, fix string) {
	if result == OK {
		fix = ""
	}
	t.rows = append(t.rows, Row{Check: check, Have: have, Want: want, Result: result, Fix: fix})
}

// grade is OK when good, else the given result.
func grade(good bool, otherwise Result) Result {
	if good {
		return OK
	}
	return otherwise
}

func (t *table) server() string { return strings.Join(t.c.o.Log.Brokers(), ",") }

func (t *table) alter(setting, value string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s",
		t.server(), t.c.o.Log.Topic(), setting, value)
}

// brokers asks each broker by the address that it advertises: clients are sent there.
func (t *table) brokers(ctx context.Context) {
	n := len(t.d.Brokers)
	t.add(grade(n >= 3, Warn), "brokers", strconv.Itoa(n), "3 or more", "with fewer than three brokers the loss of one stops the master, or loses frames")
	rows := make([]Row, n)
	var all sync.WaitGroup
	for i, b := range t.d.Brokers {
		all.Go(func() {
			asked, cancel := context.WithTimeout(ctx, t.c.o.Timeout)
			defer cancel()
			row := Row{Check: fmt.Sprintf("broker %d", b.ID), Want: "answers", Result: OK}
			took, err := t.c.o.Log.Reach(asked, b.Addr)
			row.Have = fmt.Sprintf("%s answers in %s", b.Addr, took.Round(time.Millisecond))
			if b.Rack != "" {
				row.Have += ", rack " + b.Rack
			}
			if err != nil {
				row.Result, row.Have = Fail, b.Addr+" does not answer"
				if errors.Is(err, context.DeadlineExceeded) {
					err = fmt.Errorf("no answer within %s", t.c.o.Timeout)
				}
				row.Fix = fmt.Sprintf("%v; clients must reach each broker by its advertised.listeners", err)
			}
			rows[i] = row
		})
	}
	all.Wait()
	t.rows = append(t.rows, rows...)
}

func (t *table) protocol() {
	produce, fetch := t.d.APIs["Produce"], t.d.APIs["Fetch"]
	// zstd came with Produce 7 and Fetch 10 (KIP-110, Kafka 2.1). kafka-go v0.4.51 speaks Fetch up to 11.
	have := fmt.Sprintf("Produce %d-%d, Fetch %d-%d", produce.Min, produce.Max, fetch.Min, fetch.Max)
	result := OK
	switch {
	case produce.Max < 3 || fetch.Max < 4 || fetch.Min > 11:
		result = Fail
	case produce.Max < 7 || fetch.Max < 10:
		result = Warn
	}
	t.add(result, "protocol", have, "Produce 7, Fetch 10 to 11", "use Kafka 2.1 or newer (before 2.1: --kafka.compression without zstd; before 0.11: not at all)")
}

// topic reports whether there is one to look at.
func (t *table) topic() bool {
	name := t.c.o.Log.Topic()
	switch {
	case errors.Is(t.d.TopicErr, changelog.ErrForbidden):
		t.add(Fail, "topic", name+": no right to see it", "exists", t.allow(changelog.RightDescribe, changelog.RightRead))
	case t.d.TopicErr != nil:
		n := min(3, max(1, len(t.d.Brokers)))
		t.add(Fail, "topic", name+": none, or no right to see it", "exists", fmt.Sprintf(
			"`drover master` creates it, or: kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions 1 --replication-factor %d --config min.insync.replicas=%d --config cleanup.policy=delete --config unclean.leader.election.enable=false --config max.message.bytes=%d --config retention.ms=%d",
			t.server(), name, n, minISR(n), changelog.DefaultMaxMessageBytes, t.retention()))
	default:
		t.add(OK, "topic", name, "exists", "")
		return true
	}
	return false
}

func minISR(replicas int) int {
	if replicas >= 3 {
		return 2
	}
	return 1
}

func (t *table) retention() int64 {
	if t.c.o.Retention < 0 {
		return -1
	}
	return t.c.o.Retention.Milliseconds()
}

func (t *table) partition() {
	n := len(t.d.Partitions)
	t.add(grade(n == 1, Fail), "partitions", strconv.Itoa(n), "1", "partitions cannot be taken away: delete the topic, or choose another --cluster name")
	if n == 0 {
		return
	}
	p := t.d.Partitions[0]
	t.add(grade(p.Leader >= 0, Fail), "leader", broker(p.Leader), "a broker", "no broker leads the partition: start the brokers that hold it ("+ids(p.Replicas)+")")
	t.add(grade(len(p.Replicas) >= 3, Warn), "replication factor", strconv.Itoa(len(p.Replicas)), "3",
		fmt.Sprintf(`kafka-reassign-partitions.sh --bootstrap-server %s --execute --reassignment-json-file plan.json, with {"version":1,"partitions":[{"topic":"%s","partition":0,"replicas":[ID,ID,ID]}]}`, t.server(), t.c.o.Log.Topic()))
	inSync, need := len(p.InSync), int(t.number("min.insync.replicas"))
	result := grade(inSync == len(p.Replicas), Warn)
	if inSync < need {
		result = Fail
	}
	t.add(result, "in-sync replicas now", fmt.Sprintf("%d (%s)", inSync, ids(p.InSync)), fmt.Sprintf("%d (%s)", len(p.Replicas), ids(p.Replicas)),
		"a broker is down or behind: look at its log; below min.insync.replicas nothing can be published")
}

func broker(id int) string {
	if id < 0 {
		return "none"
	}
	return "broker " + strconv.Itoa(id)
}

func ids(list []int) string {
	sorted := slices.Sorted(slices.Values(list))
	text := make([]string, len(sorted))
	for i, id := range sorted {
		text[i] = strconv.Itoa(id)
	}
	return strings.Join(text, ", ")
}

// number returns a setting as a number; 0 when it is not known.
func (t *table) number(name string) int64 {
	n, _ := strconv.ParseInt(t.d.Settings[name].Value, 10, 64)
	return n
}

func (t *table) settings() {
	if t.d.SettingsErr != nil {
		t.add(Warn, "settings", "no right to see them", "DescribeConfigs", "a replica needs none; to have them checked: "+t.allow(changelog.RightDescribeConfigs))
		return
	}
	have := func(name string) string {
		s := t.d.Settings[name]
		if s.Default {
			return s.Value + " (the brokers' default)"
		}
		return s.Value
	}
	value := func(name string) string { return t.d.Settings[name].Value }

	t.inSyncMinimum(have("min.insync.replicas"))
	t.add(grade(value("unclean.leader.election.enable") == "false", Warn), "unclean.leader.election.enable", have("unclean.leader.election.enable"), "false",
		t.alter("unclean.leader.election.enable", "false")+" (otherwise acknowledged frames can be lost)")
	t.add(grade(value("cleanup.policy") == "delete", Fail), "cleanup.policy", have("cleanup.policy"), "delete",
		t.alter("cleanup.policy", "delete")+" (compaction takes frames out of the middle)")

	keep, want := t.number("retention.ms"), t.retention()
	t.add(grade(keep == -1 || want != -1 && keep >= want, Warn), "retention.ms", span(keep), "at least "+span(want),
		t.alter("retention.ms", strconv.FormatInt(want, 10))+" (a snapshot must be younger than what is retained)")
	t.add(grade(t.number("retention.bytes") == -1, Warn), "retention.bytes", have("retention.bytes"), "-1",
		t.alter("retention.bytes", "-1")+" (a burst of writes shortens the retention otherwise)")

	size, least := t.number("max.message.bytes"), int64(changelog.MinMessageBytes)
	result := grade(size >= changelog.DefaultMaxMessageBytes, Warn)
	if size < least {
		result = Fail
	}
	t.add(result, "max.message.bytes", have("max.message.bytes"), fmt.Sprintf("%d (at least %d)", changelog.DefaultMaxMessageBytes, least),
		t.alter("max.message.bytes", strconv.Itoa(changelog.DefaultMaxMessageBytes)))
	t.add(grade(value("compression.type") == "producer", Warn), "compression.type", have("compression.type"), "producer",
		t.alter("compression.type", "producer")+" (the brokers compress again what the master has compressed)")
	stamp := value("message.timestamp.type")
	t.add(grade(stamp == "CreateTime" || stamp == "LogAppendTime", Warn), "message.timestamp.type", have("message.timestamp.type"), "CreateTime or LogAppendTime",
		t.alter("message.timestamp.type", "CreateTime"))
}

func (t *table) inSyncMinimum(have string) {
	replicas := 0
	if len(t.d.Partitions) > 0 {
		replicas = len(t.d.Partitions[0].Replicas)
	}
	need, want := int(t.number("min.insync.replicas")), minISR(replicas)
	result, why := OK, "(what one broker alone has acknowledged is lost with it)"
	switch {
	case need > replicas:
		result, why = Fail, "(more than there are replicas: nothing can be published)"
	case need == replicas && replicas > 1:
		result, why = Warn, "(one broker away stops the master)"
	case need < want:
		result = Warn
	}
	t.add(result, "min.insync.replicas", have, strconv.Itoa(want), t.alter("min.insync.replicas", strconv.Itoa(want))+" "+why)
}

// span shows milliseconds as a person counts them.
func span(ms int64) string {
	if ms < 0 {
		return "for ever (-1)"
	}
	d := time.Duration(ms) * time.Millisecond
	text := d.String()
	if d >= 48*time.Hour && d%time.Hour == 0 {
		text = fmt.Sprintf("%dd", d/(24*time.Hour))
		if h := d % (24 * time.Hour) / time.Hour; h > 0 {
			text += fmt.Sprintf("%dh", h)
		}
	}
	return fmt.Sprintf("%s (%d)", text, ms)
}

// allow is the command that gives the rights. The user's own name is not known to its client.
func (t *table) allow(rights ...changelog.Right) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-acls.sh --bootstrap-server %s --add --allow-principal User:NAME", t.server())
	for _, r := range rights {
		fmt.Fprintf(&b, " --operation %s", r)
	}
	fmt.Fprintf(&b, " --topic %s --resource-pattern-type prefixed", strings.TrimSuffix(t.c.o.Log.Topic(), "log"))
	return b.String()
}

func (t *table) rights() {
	if errors.Is(t.d.TopicErr, changelog.ErrForbidden) {
		return // the topic's row says it
	}
	if !t.d.Rights.Known {
		t.add(Warn, "rights", "not known", "Describe, Read; a master: Write, DescribeConfigs, Create too", "the brokers tell rights on a topic that exists, from Kafka 2.3 on")
		return
	}
	for _, r := range []struct {
		right changelog.Right
		who   string
		lack  Result
	}{
		{changelog.RightDescribe, "everybody", Fail},
		{changelog.RightRead, "everybody", Fail},
		{changelog.RightWrite, "a master", Warn},
		{changelog.RightDescribeConfigs, "a master", Warn},
	} {
		have := "yes"
		if !t.d.Rights.Has(r.right) {
			have = "no"
		}
		fix := t.allow(r.right)
		if r.lack == Warn {
			fix = "nothing to do unless this user runs " + r.who + "; then: " + fix
		}
		t.add(grade(t.d.Rights.Has(r.right), r.lack), "right: "+r.right.String(), have, "yes for "+r.who, fix)
	}
}

// content reads the topic's end, without waiting for a leader that is away.
func (t *table) content(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.c.o.Timeout)
	defer cancel()
	const check = "content"
	first, next, err := t.c.o.Log.Bounds(ctx)
	if err == nil {
		t.add(OK, "offsets", fmt.Sprintf("%d to %d", first, next-1), "", "")
		if first == next {
			t.rows[len(t.rows)-1].Have = "none retained"
			if next > 0 {
				t.rows[len(t.rows)-1].Have = fmt.Sprintf("none retained below %d", next)
			}
		}
		var tail changelog.Tail
		if tail, err = t.c.o.Log.Tail(ctx); err == nil {
			t.tail(check, tail)
			return
		}
	}
	t.add(Fail, check, err.Error(), "frames of this cluster", "see `drover log inspect`")
}

func (t *table) tail(check string, tail changelog.Tail) {
	switch {
	case tail.Damaged != nil:
		t.add(Fail, check, tail.Damaged.Error(), "frames of this cluster", "replicas stop there; look at it with `drover log inspect`, and go on with `drover master --rebase`")
	case tail.Empty:
		t.add(OK, check, "empty", "frames of this cluster", "")
	default:
		t.add(OK, check, fmt.Sprintf("timeline %d, sequence %d", tail.Timeline, tail.Sequence), "frames of this cluster", "")
	}
}

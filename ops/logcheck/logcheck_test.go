package logcheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
)

// fakeLog is a change log that is described by hand.
type fakeLog struct {
	d           changelog.Description
	err         error
	first, next int64
	tail        changelog.Tail
	tailErr     error
	unreachable string
}

func (f *fakeLog) Topic() string     { return "drover.test.log" }
func (f *fakeLog) Brokers() []string { return []string{"k1:9092", "k2:9092"} }
func (f *fakeLog) Describe(context.Context) (changelog.Description, error) {
	return f.d, f.err
}
func (f *fakeLog) Reach(ctx context.Context, addr string) (time.Duration, error) {
	if addr == f.unreachable {
		<-ctx.Done() // a paused broker
		return 0, ctx.Err()
	}
	return 3 * time.Millisecond, nil
}
func (f *fakeLog) Bounds(context.Context) (int64, int64, error) { return f.first, f.next, nil }
func (f *fakeLog) Tail(context.Context) (changelog.Tail, error) { return f.tail, f.tailErr }
func (f *fakeLog) set(name, value string)                       { f.d.Settings[name] = changelog.Setting{Value: value} }

// fits is a change log that has nothing wrong.
func fits() *fakeLog {
	return &fakeLog{
		first: 10, next: 500, tail: changelog.Tail{Timeline: 2, Sequence: 4711, First: 10, Next: 500},
		d: changelog.Description{
			Brokers:    []changelog.Broker{{ID: 1, Addr: "k1:9092", Rack: "a"}, {ID: 2, Addr: "k2:9092"}, {ID: 3, Addr: "k3:9092"}},
			APIs:       map[string]changelog.APIRange{"Produce": {Min: 0, Max: 13}, "Fetch": {Min: 4, Max: 18}},
			Partitions: []changelog.PartitionInfo{{Leader: 2, Replicas: []int{2, 3, 1}, InSync: []int{1, 2, 3}}},
			Rights: changelog.NewRights(changelog.RightDescribe, changelog.RightRead, changelog.RightWrite,
				changelog.RightDescribeConfigs, changelog.RightCreate),
			Settings: map[string]changelog.Setting{
				"min.insync.replicas": {Value: "2"}, "unclean.leader.election.enable": {Value: "false"}, "cleanup.policy": {Value: "delete"},
				"retention.ms": {Value: "604800000"}, "retention.bytes": {Value: "-1", Default: true}, "max.message.bytes": {Value: "4194304"},
				"compression.type": {Value: "producer", Default: true}, "message.timestamp.type": {Value: "CreateTime", Default: true},
			},
		},
	}
}

func rows(t *testing.T, log Log, o Options) map[string]Row {
	t.Helper()
	o.Log = log
	list, err := New(o).Rows(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	byCheck := make(map[string]Row)
	for _, r := range list {
		if _, twice := byCheck[r.Check]; twice {
			t.Errorf("two rows %q", r.Check)
		}
		byCheck[r.Check] = r
	}
	return byCheck
}

func TestAChangeLogThatFitsHasNoFindings(t *testing.T) {
	var out bytes.Buffer
	if err := New(Options{Log: fits(), Out: &out}).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "warn") || strings.Contains(s, "FAIL") || !strings.Contains(s, "timeline 2, sequence 4711") {
		t.Errorf("%s", s)
	}
	for check, r := range rows(t, fits(), Options{}) {
		if r.Result != OK || r.Fix != "" {
			t.Errorf("%s: %+v", check, r)
		}
	}
}

func TestWhatDoesNotFitIsNamedWithItsFix(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*fakeLog)
		check  string
		result Result
		have   string
		fix    string
	}{
		"one broker":          {func(f *fakeLog) { f.d.Brokers = f.d.Brokers[:1] }, "brokers", Warn, "1", "fewer than three"},
		"old broker":          {func(f *fakeLog) { f.d.APIs["Fetch"] = changelog.APIRange{Max: 3} }, "protocol", Fail, "Fetch 0-3", "Kafka 2.1"},
		"no zstd":             {func(f *fakeLog) { f.d.APIs["Produce"] = changelog.APIRange{Max: 6} }, "protocol", Warn, "Produce 0-6", "Kafka 2.1"},
		"no topic":            {func(f *fakeLog) { f.d.TopicErr = changelog.ErrNoTopic }, "topic", Fail, "none", "--replication-factor 3 --config min.insync.replicas=2"},
		"hidden topic":        {func(f *fakeLog) { f.d.TopicErr = changelog.ErrForbidden }, "topic", Fail, "no right", "--operation Describe --operation Read --topic drover.test. --resource-pattern-type prefixed"},
		"partitions":          {func(f *fakeLog) { f.d.Partitions = append(f.d.Partitions, f.d.Partitions[0]) }, "partitions", Fail, "2", "delete the topic"},
		"no leader":           {func(f *fakeLog) { f.d.Partitions[0].Leader = -1 }, "leader", Fail, "none", "1, 2, 3"},
		"replicas":            {func(f *fakeLog) { f.d.Partitions[0].Replicas = []int{2, 1} }, "replication factor", Warn, "2", "kafka-reassign-partitions.sh"},
		"one out of sync":     {func(f *fakeLog) { f.d.Partitions[0].InSync = []int{2, 1} }, "in-sync replicas now", Warn, "2 (1, 2)", "down or behind"},
		"two out of sync":     {func(f *fakeLog) { f.d.Partitions[0].InSync = []int{2} }, "in-sync replicas now", Fail, "1 (2)", "nothing can be published"},
		"min ISR too low":     {func(f *fakeLog) { f.set("min.insync.replicas", "1") }, "min.insync.replicas", Warn, "1", "min.insync.replicas=2"},
		"min ISR too high":    {func(f *fakeLog) { f.set("min.insync.replicas", "3") }, "min.insync.replicas", Warn, "3", "one broker away"},
		"min ISR impossible":  {func(f *fakeLog) { f.set("min.insync.replicas", "4") }, "min.insync.replicas", Fail, "4", "more than"},
		"unclean":             {func(f *fakeLog) { f.set("unclean.leader.election.enable", "true") }, "unclean.leader.election.enable", Warn, "true", "=false"},
		"compacted":           {func(f *fakeLog) { f.set("cleanup.policy", "compact,delete") }, "cleanup.policy", Fail, "compact", "cleanup.policy=delete"},
		"short retention":     {func(f *fakeLog) { f.set("retention.ms", "3600000") }, "retention.ms", Warn, "1h0m0s", "retention.ms=604800000"},
		"retention by bytes":  {func(f *fakeLog) { f.set("retention.bytes", "1000") }, "retention.bytes", Warn, "1000", "retention.bytes=-1"},
		"messages too small":  {func(f *fakeLog) { f.set("max.message.bytes", "100000") }, "max.message.bytes", Fail, "100000", "max.message.bytes=4194304"},
		"Kafka's default":     {func(f *fakeLog) { f.set("max.message.bytes", "1048588") }, "max.message.bytes", Warn, "1048588", "max.message.bytes=4194304"},
		"compresses again":    {func(f *fakeLog) { f.set("compression.type", "gzip") }, "compression.type", Warn, "gzip", "compression.type=producer"},
		"settings hidden":     {func(f *fakeLog) { f.d.Settings, f.d.SettingsErr = nil, changelog.ErrForbidden }, "settings", Warn, "no right", "DescribeConfigs"},
		"may not read":        {func(f *fakeLog) { f.d.Rights = changelog.NewRights(changelog.RightDescribe) }, "right: Read", Fail, "no", "--operation Read"},
		"may not write":       {func(f *fakeLog) { f.d.Rights = changelog.NewRights(changelog.RightRead, changelog.RightDescribe) }, "right: Write", Warn, "no", "--operation Write"},
		"rights unknown":      {func(f *fakeLog) { f.d.Rights = changelog.Rights{} }, "rights", Warn, "not known", "2.3"},
		"damaged":             {func(f *fakeLog) { f.tail.Damaged = changelog.ErrBadFrame }, "content", Fail, "bad frame", "log inspect"},
		"of another cluster":  {func(f *fakeLog) { f.tailErr = changelog.ErrWrongCluster }, "content", Fail, "wrong cluster", "log inspect"},
		"a broker that hangs": {func(f *fakeLog) { f.unreachable = "k3:9092" }, "broker 3", Fail, "does not answer", "advertised.listeners"},
	} {
		log := fits()
		c.spoil(log)
		r, ok := rows(t, log, Options{Timeout: 50 * time.Millisecond})[c.check]
		if !ok || r.Result != c.result || !strings.Contains(r.Have, c.have) || !strings.Contains(r.Fix, c.fix) {
			t.Errorf("%s: %+v, want %s with %q and %q", name, r, c.result, c.have, c.fix)
		}
		var out bytes.Buffer
		err := New(Options{Log: log, Out: &out, Timeout: 50 * time.Millisecond}).Run(context.Background())
		if errors.Is(err, ErrFailed) != (c.result == Fail) || !strings.Contains(out.String(), c.fix) {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}

func TestForEverIsLongEnoughAndAsked(t *testing.T) {
	log := fits()
	log.set("retention.ms", "-1")
	if r := rows(t, log, Options{})["retention.ms"]; r.Result != OK {
		t.Errorf("%+v", r)
	}
	if r := rows(t, fits(), Options{Retention: -1})["retention.ms"]; r.Result != Warn || !strings.Contains(r.Fix, "retention.ms=-1") {
		t.Errorf("%+v", r)
	}
}

func TestJSONHoldsTheSameRows(t *testing.T) {
	log := fits()
	log.set("cleanup.policy", "compact")
	var out bytes.Buffer
	if err := New(Options{Log: log, Out: &out, JSON: true}).Run(context.Background()); !errors.Is(err, ErrFailed) {
		t.Error(err)
	}
	var list []Row
	if err := json.Unmarshal(out.Bytes(), &list); err != nil || len(list) != len(rows(t, log, Options{})) {
		t.Errorf("%d rows, %v", len(list), err)
	}
}

func TestNoAnswerIsAnErrorAndNoTable(t *testing.T) {
	log := fits()
	log.err = changelog.ErrBrokersUnreachable
	var out bytes.Buffer
	if err := New(Options{Log: log, Out: &out}).Run(context.Background()); !errors.Is(err, changelog.ErrBrokersUnreachable) || out.Len() > 0 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

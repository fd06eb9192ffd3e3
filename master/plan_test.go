package master

import (
	"testing"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

func TestWhereAMasterGoesOn(t *testing.T) {
	marked := func(cluster string, timeline uint64, role string) *chaindata.Marker {
		return &chaindata.Marker{Cluster: cluster, Timeline: timeline, Role: role}
	}
	ours := marked("c", 2, chaindata.RoleSource)
	topic := changelog.Tail{Timeline: 2, Sequence: 100}
	own := changelog.Tail{Timeline: 3, Sequence: 80, Start: &changelog.TimelineStart{Reason: changelog.ReasonTakeover, PreviousTimeline: 2, PreviousSequence: 100, Base: 80}}
	recovered := marked("c", 2, chaindata.RoleRecovering)
	recovered.Sequence = 80
	empty := changelog.Tail{Empty: true}
	for _, test := range []struct {
		name   string
		tail   changelog.Tail
		src    source
		asked  ask
		want   plan // start is looked at alone
		starts bool
		target error
		text   string
	}{
		{"a fresh datadir opens the topic", empty, source{}, askNothing, plan{timeline: 1}, true, nil, ""},
		{"a database opens the topic where it is", empty, source{sequence: 7}, askNothing, plan{timeline: 1, last: 7}, true, nil, ""},
		{"a source keeps its timeline on a topic that is empty again", empty, source{sequence: 9, marker: ours}, askNothing, plan{timeline: 2, last: 9}, true, nil, ""},
		{"a source goes on", topic, source{sequence: 100, marker: ours}, askNothing, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a source with more goes on behind the topic's end", topic, source{sequence: 140, marker: ours}, askNothing, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a live source's sequence is already the past", topic, source{sequence: 90, marker: ours, live: true}, askNothing, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a source that lost writes", topic, source{sequence: 90, marker: ours}, askNothing, plan{action: recovery}, false, nil, ""},
		{"a copy of the source that is behind", topic, source{sequence: 90, marker: ours, copied: true}, askNothing, plan{}, false, ErrNotOurs, "--takeover"},
		{"a copy of the source, made at the topic's end", topic, source{sequence: 100, marker: ours, copied: true}, askNothing, plan{}, false, ErrNotOurs, "--takeover"},
		{"a copy, asked to take over", topic, source{sequence: 70, marker: marked("c", 2, chaindata.RoleCopy)}, askTakeover, plan{action: takeover}, false, nil, ""},
		{"a copy of the source, asked to take over", topic, source{sequence: 90, marker: ours, copied: true}, askTakeover, plan{action: takeover}, false, nil, ""},
		{"a copy from before the first start, asked to take over", topic, source{sequence: 70}, askTakeover, plan{action: takeover}, false, nil, ""},
		{"a copy on an empty topic, asked to take over", empty, source{marker: marked("c", 2, chaindata.RoleCopy)}, askTakeover, plan{action: takeover}, false, nil, ""},
		{"the source needs no takeover", topic, source{sequence: 100, marker: ours}, askTakeover, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a fenced source cannot take over", topic, source{sequence: 200, marker: marked("c", 1, chaindata.RoleSource)}, askTakeover, plan{}, false, changelog.ErrFenced, "timeline 1"},
		{"another cluster's copy, asked to take over", topic, source{marker: marked("d", 2, chaindata.RoleCopy)}, askTakeover, plan{}, false, ErrNotOurs, `says cluster "d"`},
		{"a recovery goes on", topic, source{sequence: 95, marker: marked("c", 2, chaindata.RoleRecovering)}, askNothing, plan{action: recovery}, false, nil, ""},
		{"a recovery that lost to a takeover", topic, source{sequence: 95, marker: marked("c", 1, chaindata.RoleRecovering)}, askNothing, plan{}, false, changelog.ErrFenced, "lost writes"},
		{"a recovery whose own start is on the topic", own, source{sequence: 80, marker: recovered}, askNothing, plan{timeline: 3, last: 80}, false, nil, ""},
		{"a recovery that finds another's start", own, source{sequence: 81, marker: recovered}, askNothing, plan{}, false, changelog.ErrFenced, "lost writes"},
		{"a copy of a recovering source", topic, source{marker: marked("c", 2, chaindata.RoleRecovering), copied: true}, askNothing, plan{}, false, ErrNotOurs, "--takeover"},
		{"another cluster's source", topic, source{sequence: 100, marker: marked("d", 2, chaindata.RoleSource)}, askNothing, plan{}, false, ErrNotOurs, `says cluster "d"`},
		{"another cluster's source on an empty topic", empty, source{marker: marked("d", 1, chaindata.RoleSource)}, askNothing, plan{}, false, ErrNotOurs, `says cluster "d"`},
		{"a copy", topic, source{sequence: 100, marker: marked("c", 2, chaindata.RoleCopy)}, askNothing, plan{}, false, ErrNotOurs, "--takeover"},
		{"a copy on an empty topic", empty, source{marker: marked("c", 2, chaindata.RoleCopy)}, askNothing, plan{}, false, ErrNotOurs, "--takeover"},
		{"the source of an older timeline", topic, source{sequence: 200, marker: marked("c", 1, chaindata.RoleSource)}, askNothing, plan{}, false, changelog.ErrFenced, "timeline 1"},
		{"the source of a newer timeline", topic, source{sequence: 200, marker: marked("c", 3, chaindata.RoleSource)}, askNothing, plan{}, false, ErrNotOurs, "timeline 3"},
		{"a database that was never captured", topic, source{sequence: 200}, askNothing, plan{}, false, ErrNotOurs, "never its source"},
		{"a fresh datadir on a topic with frames", topic, source{}, askNothing, plan{}, false, ErrNotOurs, "never its source"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decide("c", test.tail, test.src, test.asked)
			if test.target != nil {
				assertErrorIs(t, err, test.target, test.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.want.action != goOn && got.action != test.want.action {
				t.Errorf("got action %d, want %d", got.action, test.want.action)
			}
			if got.timeline != test.want.timeline || got.last != test.want.last || (got.start != nil) != test.starts {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if got.start != nil && (got.start.Base != got.last || got.start.Cluster != "c" || got.start.Reason != changelog.ReasonInitial) {
				t.Errorf("start frame %+v", got.start)
			}
		})
	}
}

func TestWhereARebaseStarts(t *testing.T) {
	marker := &chaindata.Marker{Cluster: "c", Timeline: 2, Role: chaindata.RoleSource}
	tail := changelog.Tail{Timeline: 2, Newest: 3, Sequence: 100, Next: 7}
	got, err := decide("c", tail, source{sequence: 400, marker: marker}, askRebase)
	if err != nil || got.action != rebase || got.timeline != 4 || got.last != 400 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := changelog.TimelineStart{Cluster: "c", Reason: changelog.ReasonRebase, PreviousTimeline: 2, PreviousSequence: 100, Base: 400, Offset: 7}
	if *got.start != want {
		t.Errorf("start %+v, want %+v", *got.start, want)
	}
	if _, err := decide("c", tail, source{sequence: 400}, askRebase); err == nil {
		t.Error("a database of nobody knows where became the source by a rebase")
	}
}

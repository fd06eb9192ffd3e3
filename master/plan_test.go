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
	empty := changelog.Tail{Empty: true}
	for _, test := range []struct {
		name   string
		tail   changelog.Tail
		src    source
		want   plan // start is looked at alone
		starts bool
		target error
		text   string
	}{
		{"a fresh datadir opens the topic", empty, source{}, plan{timeline: 1}, true, nil, ""},
		{"a database opens the topic where it is", empty, source{sequence: 7}, plan{timeline: 1, last: 7}, true, nil, ""},
		{"a source keeps its timeline on a topic that is empty again", empty, source{sequence: 9, marker: ours}, plan{timeline: 2, last: 9}, true, nil, ""},
		{"a source goes on", topic, source{sequence: 100, marker: ours}, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a source with more goes on behind the topic's end", topic, source{sequence: 140, marker: ours}, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a live source's sequence is already the past", topic, source{sequence: 90, marker: ours, live: true}, plan{timeline: 2, last: 100}, false, nil, ""},
		{"a source that lost writes", topic, source{sequence: 90, marker: ours}, plan{}, false, chaindata.ErrBehind, "ends at sequence 90"},
		{"another cluster's source", topic, source{sequence: 100, marker: marked("d", 2, chaindata.RoleSource)}, plan{}, false, ErrNotOurs, `says cluster "d"`},
		{"another cluster's source on an empty topic", empty, source{marker: marked("d", 1, chaindata.RoleSource)}, plan{}, false, ErrNotOurs, `says cluster "d"`},
		{"a copy", topic, source{sequence: 100, marker: marked("c", 2, chaindata.RoleCopy)}, plan{}, false, ErrNotOurs, "--takeover"},
		{"a copy on an empty topic", empty, source{marker: marked("c", 2, chaindata.RoleCopy)}, plan{}, false, ErrNotOurs, "--takeover"},
		{"the source of an older timeline", topic, source{sequence: 200, marker: marked("c", 1, chaindata.RoleSource)}, plan{}, false, changelog.ErrFenced, "timeline 1"},
		{"the source of a newer timeline", topic, source{sequence: 200, marker: marked("c", 3, chaindata.RoleSource)}, plan{}, false, ErrNotOurs, "timeline 3"},
		{"a database that was never captured", topic, source{sequence: 200}, plan{}, false, ErrNotOurs, "never its source"},
		{"a fresh datadir on a topic with frames", topic, source{}, plan{}, false, ErrNotOurs, "never its source"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decide("c", test.tail, test.src)
			if test.target != nil {
				assertErrorIs(t, err, test.target, test.text)
				return
			}
			if err != nil {
				t.Fatal(err)
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

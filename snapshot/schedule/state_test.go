package schedule

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-io/drover/snapshot"
)

func TestChangesOfSeveralSchedulersAreAllKept(t *testing.T) {
	store := newMemStore()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			n := notes{store: store, cluster: testCluster}
			for j := range 10 {
				r := Run{Started: time.Unix(1e9, 0).UTC(), Node: fmt.Sprint(i), Outcome: Failed, Error: fmt.Sprint(j)}
				if err := n.change(t.Context(), func(s *State) { s.ended(r) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s, err := ReadState(t.Context(), store, testCluster)
	if err != nil || len(s.Runs) != 30 || s.Failures != 30 {
		t.Errorf("%d runs, %d failures, %v", len(s.Runs), s.Failures, err)
	}
}

func TestWhatCouldNotBeWrittenIsWrittenLater(t *testing.T) {
	store := newMemStore()
	n := notes{store: store, cluster: testCluster}
	failed := func(s *State) { s.ended(Run{Outcome: Failed, Error: strings.Repeat("x", 5000)}) }
	store.fail(snapshot.ErrFull)
	for range 2 {
		if err := n.change(t.Context(), failed); !errors.Is(err, snapshot.ErrFull) {
			t.Fatal(err)
		}
	}
	if s := n.get(); s.Failures != 2 || len(s.Runs) != 2 {
		t.Errorf("in memory: %+v", s)
	}
	store.fail(nil)
	other := notes{store: store, cluster: testCluster}
	if err := other.change(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	if err := n.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := ReadState(t.Context(), store, testCluster)
	if err != nil || s.Failures != 3 || len(s.Runs) != 3 || len(s.Runs[0].Error) > errorLimit+10 {
		t.Errorf("%d failures, %d runs, %v", s.Failures, len(s.Runs), err)
	}
}

func TestNotesOfOthersAreRefusedInOneLine(t *testing.T) {
	for name, body := range map[string]string{
		"newer":        `{"format":2,"cluster":"test"}`,
		"cut off":      `{"format":1,"clus`,
		"of another":   `{"format":1,"cluster":"other"}`,
		"unknown":      `{"format":1,"cluster":"test","more":1}`,
		"no extension": `{"format":1,"cluster":"test","extension":{"original":"0s","steps":["1h"]}}`,
		"empty":        ``,
		"huge":         `{"format":1,"cluster":"` + strings.Repeat("x", stateLimit) + `"}`,
	} {
		store := newMemStore()
		if _, err := store.Create(t.Context(), stateKey(testCluster), []byte(body)); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadState(t.Context(), store, testCluster); !errors.Is(err, ErrState) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%s: %.400v", name, err)
		}
	}
	if s, err := ReadState(t.Context(), newMemStore(), testCluster); err != nil || s.Runs != nil {
		t.Errorf("none yet: %+v, %v", s, err)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"format":1,"cluster":"test","runs":[{"started":"2026-11-21T13:00:00Z","outcome":"ok"}],"extension":{"original":"24h","steps":["30h"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s State
		if decodeState(b, testCluster, &s) != nil {
			return
		}
		if s.Cluster != testCluster || s.Extension != nil && s.Extension.Original <= 0 {
			t.Errorf("%+v", s)
		}
		s.abandoned(time.Now())
	})
}

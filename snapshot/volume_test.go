package snapshot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// rawCopy is what a snapshot of the volume under a running master would hold: its journal ends in the middle of a record.
func rawCopy(t *testing.T, src *source, to string) {
	t.Helper()
	for _, path := range []string{
		filepath.Join(src.datadir, "geth", "drover-journals", "000001.log"), filepath.Join(src.datadir, "geth", stageName, "run-1", "chaindata", "CURRENT"),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("of the master"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// cp, unlike a volume's snapshot, takes its time: again while LevelDB still merges.
	for end := time.Now().Add(time.Minute); ; {
		before, err := filepath.Glob(filepath.Join(src.dir(), "*"))
		out, failed := exec.Command("cp", "-a", src.datadir, to).CombinedOutput()
		after, again := filepath.Glob(filepath.Join(src.dir(), "*"))
		if err := errors.Join(err, again); err != nil {
			t.Fatal(err)
		}
		if failed == nil && slices.Equal(before, after) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v: %s", failed, out)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	journals, err := filepath.Glob(filepath.Join(chaindataOf(to), "*.log"))
	if err != nil || len(journals) == 0 {
		t.Fatal("no journals", err)
	}
	last := journals[len(journals)-1]
	fi, err := os.Stat(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(last, fi.Size()-5); err != nil {
		t.Fatal(err)
	}
}

// written is a source that is still open, with a journal that holds something.
func written(t *testing.T) *source {
	t.Helper()
	src := newSource(t, filepath.Join(t.TempDir(), "datadir"))
	src.freeze(100_000)
	src.write(300)
	return src
}

func TestAVolumesCopyOfALiveDatadirIsSettledAndProved(t *testing.T) {
	t.Parallel()
	src := written(t)
	peeked, err := Peek(deadline(t, time.Minute), PeekOptions{Cluster: testCluster, Datadir: src.datadir})
	if err != nil {
		t.Fatal(err)
	}
	if peeked.Head.Number != 299 || peeked.Sequence != src.ends[299] || peeked.Timeline != 3 || peeked.Offset != -1 || peeked.Role != RoleMaster {
		t.Errorf("peeked %s", asJSON(peeked))
	}
	if _, err := Peek(deadline(t, time.Minute), PeekOptions{Cluster: "other", Datadir: src.datadir}); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("another cluster's: %v", err)
	}
	nothingLeft(t, src.datadir)
	copied := filepath.Join(t.TempDir(), "copied")
	rawCopy(t, src, copied)
	for range 2 {
		if err := Settle(t.Context(), copied, testLogger(t)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(copied, "geth"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the database: %v, %v", entries, err)
	}
	if marker, err := chaindata.ReadMarker(chaindataOf(copied)); err != nil || marker.Role != chaindata.RoleCopy || marker.Sequence != src.ends[298] {
		t.Errorf("marker %+v, %v: block 298 is the last whole one, at %d", marker, err, src.ends[298])
	}
	check := VerifyDatadirOptions{Cluster: testCluster, Datadir: copied, What: "volume", Logger: testLogger(t)}
	m, done, err := VerifyDatadir(deadline(t, time.Minute), check)
	if err != nil || m.Head.Number != 298 || m.Sequence != src.ends[298] || done.TrieNodes == 0 || done.Tables == 0 || done.Sample != 1 {
		t.Fatalf("%s, %s, %v", asJSON(m), asJSON(done), err)
	}
	src.sameAt(copied, &m)
	if _, err := os.Stat(filepath.Join(chaindataOf(copied), "ancient", "chain", "bodies.0000.cdat")); err != nil {
		t.Error(err)
	}

	late := check
	late.AtLeast = changelog.Position{Timeline: 3, Sequence: m.Sequence + 1}
	if _, _, err := VerifyDatadir(t.Context(), late); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one that lacks what its tags promise: %v", err)
	}
	foreign := check
	foreign.Cluster = "other"
	if _, _, err := VerifyDatadir(t.Context(), foreign); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("another cluster's: %v", err)
	}
	tables, err := filepath.Glob(filepath.Join(chaindataOf(copied), "*.ldb"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Remove(tables[0]), os.WriteFile(tables[0], b, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyDatadir(t.Context(), check); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one bit flipped: %v", err)
	}
}

func TestSettlingThatWasKilledIsGoneOnWith(t *testing.T) {
	t.Parallel()
	src := written(t)
	for name, half := range map[string]func(geth string) error{
		"copying": func(geth string) error { return os.MkdirAll(filepath.Join(geth, "."+settledName+".partial-1"), 0o755) },
		"copied":  func(string) error { return nil },
		"freezer moved": func(geth string) error {
			return os.Rename(filepath.Join(geth, "chaindata", "ancient"), filepath.Join(geth, settledName, "ancient"))
		},
		"raw one moved": func(geth string) error {
			return errors.Join(os.Rename(filepath.Join(geth, "chaindata", "ancient"), filepath.Join(geth, settledName, "ancient")),
				os.Rename(filepath.Join(geth, "chaindata"), filepath.Join(geth, rawName)))
		},
		"all but the removal": func(geth string) error {
			return errors.Join(os.Rename(filepath.Join(geth, "chaindata", "ancient"), filepath.Join(geth, settledName, "ancient")),
				os.Rename(filepath.Join(geth, "chaindata"), filepath.Join(geth, rawName)),
				os.Rename(filepath.Join(geth, settledName), filepath.Join(geth, "chaindata")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "copied")
			rawCopy(t, src, copied)
			geth := filepath.Join(copied, "geth")
			if name != "copying" {
				_, err := chaindata.Copy(t.Context(), chaindataOf(copied), filepath.Join(geth, settledName), chaindata.CopyOptions{SkipAncient: true})
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := half(geth); err != nil {
				t.Fatal(err)
			}
			if err := Settle(t.Context(), copied, nil); err != nil {
				t.Fatal(err)
			}
			m, _, err := VerifyDatadir(deadline(t, time.Minute), VerifyDatadirOptions{Cluster: testCluster, Datadir: copied, What: "volume"})
			if err != nil {
				t.Fatal(err)
			}
			src.sameAt(copied, &m)
			if entries, err := os.ReadDir(geth); err != nil || len(entries) != 1 {
				t.Errorf("left beside the database: %v, %v", entries, err)
			}
			if _, err := os.Stat(filepath.Join(geth, "chaindata", "ancient", "chain", "bodies.0000.cdat")); err != nil {
				t.Error(err)
			}
		})
	}
	if err := Settle(t.Context(), t.TempDir(), nil); !errors.Is(err, chaindata.ErrNoDatabase) {
		t.Errorf("an empty volume: %v", err)
	}
}

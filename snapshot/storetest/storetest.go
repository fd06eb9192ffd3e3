// Package storetest holds the conformance suite that each snapshot.Store has to pass.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/drover-io/drover/snapshot"
)

// Run tests a store. open gives an empty one for each test; it may be called several times by one of them, and then gives
// the same store as another process would see it.
func Run(t *testing.T, open func(t *testing.T) snapshot.Store) {
	for name, test := range map[string]func(*suite){
		"AbsentObjectsAreNotFound":                (*suite).absent,
		"PutReplacesAndGetReadsRanges":            (*suite).ranges,
		"PutCutOffInTheMiddleLeavesWhatWasBefore": (*suite).cutOff,
		"EmptyObjects":                            (*suite).empty,
		"LargeObjects":                            (*suite).large,
		"CreateSucceedsOnce":                      (*suite).createOnce,
		"ReplaceComparesVersions":                 (*suite).replace,
		"ReplaceAmongManyLosesNoUpdate":           (*suite).counter,
		"ListIsInOrderAcrossPages":                (*suite).pages,
		"ListFollowsTheWholeKeysOrder":            (*suite).order,
		"DeleteRemovesOnlyWhatIsNamed":            (*suite).remove,
		"CancelledCallsEnd":                       (*suite).cancelled,
		"PutsSideBySide":                          (*suite).sideBySide,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			test(&suite{T: t, ctx: ctx, store: open(t)})
		})
	}
}

type suite struct {
	*testing.T
	ctx   context.Context
	store snapshot.Store
}

func (s *suite) put(key string, body []byte) {
	s.Helper()
	if err := s.store.Put(s.ctx, key, bytes.NewReader(body), int64(len(body))); err != nil {
		s.Fatalf("put %s: %v", key, err)
	}
}

func (s *suite) get(key string, offset, length int64) ([]byte, error) {
	r, err := s.store.Get(s.ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r)
	return body, errors.Join(err, r.Close())
}

func (s *suite) want(key string, body []byte) {
	s.Helper()
	got, err := s.get(key, 0, -1)
	if err != nil || !bytes.Equal(got, body) {
		s.Fatalf("%s: %d bytes %.40q, %v; want %d bytes %.40q", key, len(got), got, err, len(body), body)
	}
}

func (s *suite) list(prefix string) []snapshot.Object {
	s.Helper()
	var all []snapshot.Object
	for o, err := range s.store.List(s.ctx, prefix) {
		if err != nil {
			s.Fatalf("list %q: %v", prefix, err)
		}
		all = append(all, o)
	}
	return all
}

func keysOf(objects []snapshot.Object) []string {
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

func (s *suite) absent() {
	if _, err := s.get("c/none", 0, -1); !errors.Is(err, snapshot.ErrNotFound) {
		s.Errorf("get: %v", err)
	}
	if err := s.store.Delete(s.ctx, "c/none", "c/neither"); err != nil {
		s.Errorf("delete: %v", err)
	}
	if err := s.store.Delete(s.ctx); err != nil {
		s.Errorf("delete of nothing: %v", err)
	}
	if all := s.list(""); len(all) > 0 {
		s.Errorf("an empty store lists %v", keysOf(all))
	}
	if _, err := s.store.Replace(s.ctx, "c/none", []byte("x"), "some version"); !errors.Is(err, snapshot.ErrConflict) {
		s.Errorf("replace: %v", err)
	}
	if s.store.String() == "" {
		s.Error("the store has no name")
	}
}

func (s *suite) ranges() {
	s.put("c/a/b", []byte("first"))
	s.put("c/a/b", []byte("0123456789"))
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{0, -1, "0123456789"}, {0, 4, "0123"}, {3, 4, "3456"}, {3, -1, "3456789"}, {8, 100, "89"}, {9, 1, "9"}} {
		if got, err := s.get("c/a/b", c.offset, c.length); err != nil || string(got) != c.want {
			s.Errorf("%d from %d: %q, %v, want %q", c.length, c.offset, got, err, c.want)
		}
	}
}

func (s *suite) cutOff() {
	failed := errors.New("the source failed")
	bodies := map[string]func() io.Reader{
		"short":  func() io.Reader { return strings.NewReader("half") },
		"failed": func() io.Reader { return io.MultiReader(strings.NewReader("half"), iotest.ErrReader(failed)) },
		"long":   func() io.Reader { return strings.NewReader("much more than was announced") },
	}
	for name, body := range bodies {
		err := s.store.Put(s.ctx, "c/new", body(), 10)
		if err == nil || name == "failed" && !errors.Is(err, failed) {
			s.Errorf("%s: %v", name, err)
		}
		if _, err := s.get("c/new", 0, -1); !errors.Is(err, snapshot.ErrNotFound) {
			s.Errorf("%s: it left something: %v", name, err)
		}
		s.put("c/old", []byte("as it was"))
		if err := s.store.Put(s.ctx, "c/old", body(), 10); err == nil {
			s.Errorf("%s: no error", name)
		}
		s.want("c/old", []byte("as it was"))
	}
	if keys := keysOf(s.list("")); !slices.Equal(keys, []string{"c/old"}) {
		s.Errorf("the store lists %v", keys)
	}
}

func (s *suite) empty() {
	s.put("c/empty", nil)
	s.want("c/empty", nil)
	if all := s.list("c/"); len(all) != 1 || all[0].Size != 0 {
		s.Errorf("%+v", all)
	}
}

// pattern is n bytes that do not compress, made as they are read.
func pattern(n int) []byte {
	body := make([]byte, 0, n+32)
	for sum := sha256.Sum256(nil); len(body) < n; sum = sha256.Sum256(sum[:]) {
		body = append(body, sum[:]...)
	}
	return body[:n]
}

func (s *suite) large() {
	body := pattern(100 << 20)
	s.put("c/large", body)
	if got, err := s.get("c/large", 99<<20, -1); err != nil || !bytes.Equal(got, body[99<<20:]) {
		s.Errorf("its end: %d bytes, %v", len(got), err)
	}
	r, err := s.store.Get(s.ctx, "c/large", 0, -1)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, r); err != nil || n != int64(len(body)) || [32]byte(sum.Sum(nil)) != sha256.Sum256(body) {
		s.Errorf("%d bytes, %v", n, err)
	}
	// A body that cannot be read again.
	if err := s.store.Put(s.ctx, "c/large", io.MultiReader(bytes.NewReader(body[:20<<20])), 20<<20); err != nil {
		s.Error(err)
	}
	s.want("c/large", body[:20<<20])
}

func (s *suite) createOnce() {
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			body := fmt.Appendf(nil, "from %d", i)
			version, err := s.store.Create(s.ctx, "c/leases/l.json", body)
			switch {
			case err == nil && version != "":
				won.Add(1)
				s.want("c/leases/l.json", body)
			case !errors.Is(err, snapshot.ErrExists):
				s.Errorf("version %q, %v", version, err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		s.Errorf("%d succeeded", won.Load())
	}
}

// version is what List says.
func (s *suite) version(key string) string {
	s.Helper()
	for _, o := range s.list(key) {
		if o.Key == key {
			return o.Version
		}
	}
	return ""
}

func (s *suite) replace() {
	const key = "c/leases/l.json"
	first, err := s.store.Create(s.ctx, key, []byte("same"))
	if err != nil || first == "" || first != s.version(key) {
		s.Fatalf("version %q, listed %q, %v", first, s.version(key), err)
	}
	second, err := s.store.Replace(s.ctx, key, []byte("other"), first)
	if err != nil || second == first || second != s.version(key) {
		s.Fatalf("version %q after %q, listed %q, %v", second, first, s.version(key), err)
	}
	for _, stale := range []string{first, "", "nonsense"} {
		if _, err := s.store.Replace(s.ctx, key, []byte("late"), stale); !errors.Is(err, snapshot.ErrConflict) {
			s.Errorf("version %q: %v", stale, err)
		}
	}
	s.want(key, []byte("other"))
	if err := s.store.Delete(s.ctx, key); err != nil {
		s.Fatal(err)
	}
	if _, err := s.store.Replace(s.ctx, key, []byte("late"), second); !errors.Is(err, snapshot.ErrConflict) {
		s.Errorf("deleted: %v", err)
	}
	if _, err := s.get(key, 0, -1); !errors.Is(err, snapshot.ErrNotFound) {
		s.Errorf("replace brought a deleted object back: %v", err)
	}
}

func (s *suite) counter() {
	const key, writers, rounds = "c/leases/n.json", 8, 5
	if _, err := s.store.Create(s.ctx, key, []byte("0")); err != nil {
		s.Fatal(err)
	}
	var conflicts atomic.Int32
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < rounds && s.ctx.Err() == nil; {
				version := s.version(key)
				body, err := s.get(key, 0, -1)
				if err != nil {
					s.Error(err)
					return
				}
				var n int
				if _, err := fmt.Sscan(string(body), &n); err != nil {
					s.Errorf("%q: %v", body, err)
					return
				}
				_, err = s.store.Replace(s.ctx, key, fmt.Append(nil, n+1), version)
				switch {
				case err == nil:
					done++
				case errors.Is(err, snapshot.ErrConflict):
					conflicts.Add(1)
				default:
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.want(key, fmt.Append(nil, writers*rounds))
	s.Logf("%d conflicts", conflicts.Load())
}

func (s *suite) lists(prefix string, want []string) {
	s.Helper()
	if got := keysOf(s.list(prefix)); !slices.Equal(got, want) {
		s.Errorf("prefix %q: %d keys %.200v, want %d %.200v", prefix, len(got), got, len(want), want)
	}
}

func (s *suite) pages() {
	var want []string
	for i := range 1203 {
		want = append(want, fmt.Sprintf("c/objects/%02x/%d.raw", i%7, i))
	}
	slices.Sort(want)
	var wg sync.WaitGroup
	for chunk := range slices.Chunk(want, 200) {
		wg.Go(func() {
			for _, key := range chunk {
				if err := s.store.Put(s.ctx, key, strings.NewReader(key), int64(len(key))); err != nil {
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	all := s.list("c/")
	if got := keysOf(all); !slices.Equal(got, want) {
		s.Fatalf("%d keys, want %d", len(got), len(want))
	}
	for _, o := range all {
		if o.Size != int64(len(o.Key)) || time.Since(o.Modified) > time.Hour || time.Since(o.Modified) < -time.Hour {
			s.Fatalf("%+v", o)
		}
	}
	if err := s.store.Delete(s.ctx, want[1:]...); err != nil {
		s.Fatal(err)
	}
	s.lists("", want[:1])
}

func (s *suite) remove() {
	for _, key := range []string{"c/a/1", "c/a/2", "c/a/22", "c/b/1"} {
		s.put(key, []byte(key))
	}
	if err := s.store.Delete(s.ctx, "c/a/2", "c/none", "c/b/1", "c/a"); err != nil {
		s.Fatal(err)
	}
	s.lists("", []string{"c/a/1", "c/a/22"})
}

func (s *suite) order() {
	want := []string{"c/a", "c/a-b/x", "c/a.b/x", "c/ab", "c/b+c", "c/b-", "c/b.x", "c/b/1", "c/b/1.x/2", "c/b/1/2", "c/b0", "c/b=c", "d/x"}
	slices.Sort(want)
	want = slices.DeleteFunc(want, func(key string) bool { return key == "c/b/1" || key == "c/a" }) // a directory cannot be an object, too
	for _, key := range want {
		s.put(key, nil)
	}
	s.lists("", want)
	s.lists("c/b", slices.DeleteFunc(slices.Clone(want), func(key string) bool { return !strings.HasPrefix(key, "c/b") }))
	s.lists("c/b/", slices.DeleteFunc(slices.Clone(want), func(key string) bool { return !strings.HasPrefix(key, "c/b/") }))
	s.lists("c/none", nil)
	for _, err := range s.store.List(s.ctx, "") { // ended early
		if err != nil {
			s.Error(err)
		}
		break
	}
}

func (s *suite) cancelled() {
	s.put("c/x", []byte("x"))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if err := s.store.Put(ctx, "c/y", strings.NewReader("y"), 1); !errors.Is(err, context.Canceled) {
		s.Errorf("put: %v", err)
	}
	if r, err := s.store.Get(ctx, "c/x", 0, -1); err == nil {
		_, err = io.ReadAll(r)
		r.Close()
		if !errors.Is(err, context.Canceled) {
			s.Errorf("get: %v", err)
		}
	} else if !errors.Is(err, context.Canceled) {
		s.Errorf("get: %v", err)
	}
	var last error
	for _, err := range s.store.List(ctx, "") {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		s.Errorf("list: %v", last)
	}
	s.lists("", []string{"c/x"})
}

func (s *suite) sideBySide() {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				body := fmt.Appendf(nil, "%d of %d", j, i)
				key := fmt.Sprintf("c/%d/%d", i, j)
				if err := s.store.Put(s.ctx, key, bytes.NewReader(body), int64(len(body))); err != nil {
					s.Error(err)
					return
				}
				if err := s.store.Put(s.ctx, "c/all", bytes.NewReader(body), int64(len(body))); err != nil {
					s.Error(err)
					return
				}
				s.want(key, body)
			}
		})
	}
	wg.Wait()
	if n := len(s.list("c/")); n != 41 {
		s.Errorf("%d objects", n)
	}
}

package s3store

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/snapshot"
	localversitygw "github.com/drover-io/drover/tools/versitygw"
)

// throughRelay opens a store on a versitygw behind a relay.
func throughRelay(t *testing.T, change func(*Options)) (*Store, *relay, *localversitygw.Gateway) {
	t.Helper()
	g := startGateway(t)
	r := newRelay(t, g.Addr())
	o := options(r.url())
	if change != nil {
		change(&o)
	}
	return open(t, o), r, g
}

func TestAPutGoesOnAfterCutConnections(t *testing.T) {
	ctx := deadline(t)
	s, r, _ := throughRelay(t, nil)
	body := content(t, 8*minPartSize+11)
	r.cutUp.Store(minPartSize / 2)
	r.cuts.Store(3)
	if err := s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	if r.fired.Load() != 3 {
		t.Fatalf("%d connections were cut", r.fired.Load())
	}
	wantContent(ctx, t, s, "object", body)
}

func TestAGetGoesOnAfterCutConnections(t *testing.T) {
	ctx := deadline(t)
	s, r, _ := throughRelay(t, nil)
	body := content(t, 8*minPartSize+11)
	if err := s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	r.cutOut.Store(minPartSize / 2)
	r.cuts.Store(4)
	wantContent(ctx, t, s, "object", body)
	if r.fired.Load() != 4 {
		t.Fatalf("%d connections were cut", r.fired.Load())
	}
}

func TestAConnectionThatStandsStillIsGivenUp(t *testing.T) {
	ctx := deadline(t)
	s, r, _ := throughRelay(t, func(o *Options) { o.Stall = 500 * time.Millisecond })
	body := content(t, 3*minPartSize)
	r.cutUp.Store(minPartSize / 2)
	r.holds.Store(2)
	if err := s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	if r.fired.Load() != 2 {
		t.Fatalf("%d connections were held", r.fired.Load())
	}
	wantContent(ctx, t, s, "object", body)
}

func TestASlowServerIsNoFault(t *testing.T) {
	ctx := deadline(t)
	s, r, _ := throughRelay(t, func(o *Options) { o.Stall, o.Attempts, o.PartSize = 5*time.Second, 1, 24<<20 })
	r.rate.Store(4 << 20) // the request takes longer than the stall limit
	body := content(t, 24<<20-1)
	if err := s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	wantContent(ctx, t, s, "object", body)
}

func TestAWriteWhoseAnswerIsLostCountsOnce(t *testing.T) {
	ctx := deadline(t)
	s, r, _ := throughRelay(t, nil)
	loseOneAnswer := func() { r.cutOut.Store(1); r.cuts.Store(1); r.fired.Store(0) }

	loseOneAnswer()
	created, err := s.Create(ctx, "lease", []byte("one"))
	if err != nil || r.fired.Load() != 1 {
		t.Fatalf("create: %v (%d answers lost)", err, r.fired.Load())
	}
	loseOneAnswer()
	if _, err := s.Replace(ctx, "lease", []byte("two"), created); err != nil || r.fired.Load() != 1 {
		t.Fatalf("replace: %v (%d answers lost)", err, r.fired.Load())
	}
	wantContent(ctx, t, s, "lease", []byte("two"))

	loseOneAnswer()
	if _, err := s.Create(ctx, "lease", []byte("two")); !errors.Is(err, snapshot.ErrExists) {
		t.Fatalf("create of what another made, with the same bytes: %v", err)
	}
	loseOneAnswer()
	if _, err := s.Replace(ctx, "lease", []byte("two"), created); !errors.Is(err, snapshot.ErrConflict) {
		t.Fatalf("replace of an old version: %v", err)
	}
}

func TestAPutGoesOnWhenTheServerIsKilledAndComesBack(t *testing.T) {
	ctx := deadline(t)
	s, r, g := throughRelay(t, nil)
	body := content(t, 8*minPartSize)
	if err := s.Put(ctx, "before", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	r.sent.Store(0)
	r.rate.Store(8 << 20)
	done := make(chan error, 1)
	go func() { done <- s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))) }()
	poll(t, ctx, "half of the upload", func() bool { return r.sent.Load() > int64(len(body)/2) })
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	r.rate.Store(0)
	if err := g.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantContent(ctx, t, s, "object", body)
	wantContent(ctx, t, s, "before", body)
}

func TestAServerThatStaysAwayLeavesNothingHalfMade(t *testing.T) {
	ctx := deadline(t)
	s, r, g := throughRelay(t, func(o *Options) { o.Attempts = 2 })
	body := content(t, 8*minPartSize)
	r.rate.Store(8 << 20)
	done := make(chan error, 1)
	go func() { done <- s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))) }()
	poll(t, ctx, "half of the upload", func() bool { return r.sent.Load() > int64(len(body)/2) })
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	err := <-done
	wantOneLine(t, err, snapshot.ErrUnreachable, "put object", s.opts.Endpoint)
	r.rate.Store(0)
	if err := g.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if list := keys(ctx, t, s); len(list) > 0 {
		t.Fatalf("%v is listed", list)
	}
	if n, err := s.CleanUploads(ctx, -time.Minute); n != 1 || err != nil {
		t.Fatalf("%d uploads cleaned up, %v", n, err)
	}
	if err := s.Put(ctx, "object", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	wantContent(ctx, t, s, "object", body)
}

// uploaderEnv makes the test binary an uploader without end: see TestAKilledUploaderLeavesNothingHalfMade.
const uploaderEnv = "DROVER_TEST_S3_UPLOADER"

func TestUploader(t *testing.T) {
	where := os.Getenv(uploaderEnv)
	if where == "" {
		t.Skip("is run by TestAKilledUploaderLeavesNothingHalfMade as a process of its own")
	}
	endpoint, url, _ := strings.Cut(where, " ")
	o := options(endpoint)
	o.URL = url
	t.Fatal(open(t, o).Put(t.Context(), "object", &endless{}, 1<<40))
}

func TestAKilledUploaderLeavesNothingHalfMade(t *testing.T) {
	ctx := deadline(t)
	s, r, g := throughRelay(t, nil)
	if err := s.Put(ctx, "before", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	uploader := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestUploader$")
	uploader.Env = append(os.Environ(), uploaderEnv+"="+s.opts.Endpoint+" "+s.String())
	r.sent.Store(0)
	if err := uploader.Start(); err != nil {
		t.Fatal(err)
	}
	defer uploader.Wait()
	poll(t, ctx, "three parts", func() bool { return r.sent.Load() > 3*minPartSize })
	if err := uploader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	uploader.Wait()
	if list := keys(ctx, t, s); len(list) != 1 || list[0] != "before" {
		t.Fatalf("listed: %v", list)
	}
	if _, err := read(ctx, s, "object"); !errors.Is(err, snapshot.ErrNotFound) {
		t.Fatalf("get: %v", err)
	}
	if ids := uploads(ctx, t, s); len(ids) != 1 {
		t.Fatalf("unfinished uploads: %v", ids)
	}
	if n, err := s.CleanUploads(ctx, -time.Minute); n != 1 || err != nil {
		t.Fatalf("%d uploads cleaned up, %v", n, err)
	}
	if left := bytesBelow(t, g.BucketDir(testBucket)); left > minPartSize {
		t.Fatalf("%d bytes of the upload are still on the server's disk", left)
	}
}

func bytesBelow(t *testing.T, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		total += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

func TestAFullServerIsReported(t *testing.T) {
	ctx := deadline(t)
	dir := smallDisk(t)
	g := localversitygw.ForTest(t, localversitygw.Options{Dir: dir})
	if err := g.MakeBucket(testBucket); err != nil {
		t.Fatal(err)
	}
	o := options(g.URL())
	o.Attempts = 2
	s := open(t, o)
	if err := s.Put(ctx, "before", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	err := s.Put(ctx, "object", &endless{}, 32*minPartSize)
	wantOneLine(t, err, snapshot.ErrFull, "put object", "make room")
	if list := keys(ctx, t, s); len(list) != 1 || list[0] != "before" {
		t.Fatalf("listed: %v", list)
	}
	wantContent(ctx, t, s, "before", []byte("x"))
	if err := s.Put(ctx, "small", strings.NewReader("y"), 1); err != nil {
		t.Fatalf("the failed upload's parts still fill the disk: %v", err)
	}
}

// smallDisk is a file system of 40 MiB, made by root.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 40<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("needs a small disk, which root makes: %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return filepath.Join(mount, "buckets")
}

// wantOneLine checks that err is what an operator can use: one line, of the right kind, with these words.
func wantOneLine(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if err == nil || !errors.Is(err, kind) {
		t.Fatalf("want %q, got: %v", kind, err)
	}
	text := err.Error()
	if strings.Contains(text, "\n") || len(text) > 500 {
		t.Errorf("not one clear line: %s", text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is not in: %s", word, text)
		}
	}
}

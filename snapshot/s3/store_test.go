package s3store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/drover-io/drover/snapshot"
	localmoto "github.com/drover-io/drover/tools/moto"
	localversitygw "github.com/drover-io/drover/tools/versitygw"
)

const testBucket = "drover-test"

// deadline ends a test that hangs; nothing asserts how long anything takes.
func deadline(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an S3 server")
	}
	t.Parallel() // most of them wait
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// options point to a local server, with small parts and short waits.
func options(endpoint string) Options {
	return Options{
		URL:         "s3://" + testBucket + "/" + strings.ToLower(rand.Text()),
		Endpoint:    endpoint,
		PathStyle:   true,
		Region:      localversitygw.Region,
		Credentials: credentials.NewStaticCredentialsProvider(localversitygw.AccessKey, localversitygw.SecretKey, ""),
		PartSize:    minPartSize,
	}
}

func open(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startGateway(t *testing.T) *localversitygw.Gateway {
	t.Helper()
	g := localversitygw.ForTest(t, localversitygw.Options{})
	if err := g.MakeBucket(testBucket); err != nil {
		t.Fatal(err)
	}
	return g
}

// startMoto starts moto with the test's bucket and returns its URL.
func startMoto(t *testing.T) string {
	t.Helper()
	m := localmoto.ForTest(t, localmoto.Options{})
	o, _, _, err := options(m.URL()).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	client, err := o.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(testBucket)}); err != nil {
		t.Fatal(err)
	}
	return m.URL()
}

func content(t *testing.T, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	if _, err := rand.Read(body); err != nil {
		t.Fatal(err)
	}
	return body
}

func read(ctx context.Context, s *Store, key string) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func wantContent(ctx context.Context, t *testing.T, s *Store, key string, want []byte) {
	t.Helper()
	got, err := read(ctx, s, key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes that are not the %d which were put", key, len(got), len(want))
	}
}

func keys(ctx context.Context, t *testing.T, s *Store) (list []string) {
	t.Helper()
	for o, err := range s.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, o.Key)
	}
	return list
}

// uploads are the unfinished ones below the store's prefix.
func uploads(ctx context.Context, t *testing.T, s *Store) (ids []string) {
	t.Helper()
	out, err := s.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: aws.String(s.prefix)})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range out.Uploads {
		ids = append(ids, aws.ToString(u.UploadId))
	}
	return ids
}

func poll(t *testing.T, ctx context.Context, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: did not come before the deadline", what)
		case <-tick.C:
		}
	}
}

func TestStorageClassAndEncryptionReachTheServer(t *testing.T) {
	ctx := deadline(t)
	o := options(startMoto(t))
	o.StorageClass, o.KMSKey = "STANDARD_IA", "alias/drover"
	s := open(t, o)
	if err := s.Put(ctx, "small", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	large := content(t, 2*minPartSize+1)
	if err := s.Put(ctx, "large", bytes.NewReader(large), int64(len(large))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, "created", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"small", "large", "created"} {
		head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.path(key)})
		if err != nil {
			t.Fatal(err)
		}
		if head.StorageClass != "STANDARD_IA" || head.ServerSideEncryption != "aws:kms" || !strings.HasSuffix(aws.ToString(head.SSEKMSKeyId), "alias/drover") {
			t.Errorf("%s: class %q, encryption %q with key %q", key, head.StorageClass, head.ServerSideEncryption, aws.ToString(head.SSEKMSKeyId))
		}
	}
}

func TestASourceOfAnotherLengthIsNotStored(t *testing.T) {
	ctx := deadline(t)
	s := open(t, options(startGateway(t).URL()))
	for _, size := range []int{10, minPartSize, 2 * minPartSize, 3*minPartSize + 7} {
		body := content(t, size)
		for _, said := range []int{size - 1, size + 1, size + minPartSize} {
			err := s.Put(ctx, "object", bytes.NewReader(body), int64(said))
			if _, ok := errors.AsType[*sourceError](err); !ok {
				t.Errorf("%d bytes said to be %d: %v", size, said, err)
			}
			if list := keys(ctx, t, s); len(list) > 0 {
				t.Fatalf("%d bytes said to be %d: %v is there", size, said, list)
			}
			if ids := uploads(ctx, t, s); len(ids) > 0 {
				t.Fatalf("%d bytes said to be %d: the upload was not aborted", size, said)
			}
		}
	}
}

func TestACancelledPutIsAborted(t *testing.T) {
	ctx := deadline(t)
	s := open(t, options(startGateway(t).URL()))
	putting, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &endless{after: 3 * minPartSize, then: cancel}
	err := s.Put(putting, "object", body, 100*minPartSize)
	if !errors.Is(err, context.Canceled) || errors.Is(err, snapshot.ErrUnreachable) {
		t.Fatalf("%v", err)
	}
	if list, ids := keys(ctx, t, s), uploads(ctx, t, s); len(list) > 0 || len(ids) > 0 {
		t.Fatalf("objects %v and uploads %v are left", list, ids)
	}
}

func TestGetOfAnObjectThatIsReplacedMeanwhileFails(t *testing.T) {
	ctx := deadline(t)
	o := options(startGateway(t).URL())
	o.Concurrency = 1
	s := open(t, o)
	first, second := content(t, 6*minPartSize), content(t, 6*minPartSize)
	if err := s.Put(ctx, "object", bytes.NewReader(first), int64(len(first))); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(ctx, "object", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Put(ctx, "object", bytes.NewReader(second), int64(len(second))); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, snapshot.ErrConflict) {
		t.Fatalf("%d bytes and %v", len(got), err)
	}
	if !bytes.HasPrefix(first, got) {
		t.Fatal("what was read before is not of the first version")
	}
}

func TestRangesWithoutBytesAreEmpty(t *testing.T) {
	ctx := deadline(t)
	for name, endpoint := range map[string]string{"versitygw": startGateway(t).URL(), "moto": startMoto(t)} {
		s := open(t, options(endpoint))
		for key, body := range map[string]string{"empty": "", "ten": "0123456789"} {
			if err := s.Put(ctx, key, strings.NewReader(body), int64(len(body))); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			key            string
			offset, length int64
		}{{"empty", 0, -1}, {"empty", 0, 0}, {"empty", 0, 10}, {"ten", 10, -1}, {"ten", 10, 5}, {"ten", 100, 5}, {"ten", 3, 0}} {
			r, err := s.Get(ctx, c.key, c.offset, c.length)
			if err != nil {
				t.Fatalf("%s: %+v: %v", name, c, err)
			}
			if got, err := io.ReadAll(r); len(got) > 0 || err != nil {
				t.Errorf("%s: %+v: %q, %v", name, c, got, err)
			}
			r.Close()
		}
		if _, err := s.Get(ctx, "none", 0, 0); !errors.Is(err, snapshot.ErrNotFound) {
			t.Errorf("%s: no bytes of an absent object: %v", name, err)
		}
		if _, err := s.Get(ctx, "ten", -1, 5); err == nil {
			t.Errorf("%s: a negative offset", name)
		}
	}
}

func TestCleanUploadsLeavesYoungOnes(t *testing.T) {
	ctx := deadline(t)
	s := open(t, options(startGateway(t).URL()))
	other := open(t, options(s.opts.Endpoint))
	for _, store := range []*Store{s, other} {
		for i := range 3 {
			key := store.path(fmt.Sprintf("object-%d", i))
			if _, err := store.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &store.bucket, Key: key}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := s.CleanUploads(ctx, time.Hour); n != 0 || err != nil {
		t.Fatalf("%d removed, %v", n, err)
	}
	if err := s.Clean(); err != nil || len(uploads(ctx, t, s)) != 3 {
		t.Fatalf("Clean leaves %d, %v", len(uploads(ctx, t, s)), err)
	}
	if n, err := s.CleanUploads(ctx, -time.Minute); n != 3 || err != nil {
		t.Fatalf("%d removed, %v", n, err)
	}
	if ids := uploads(ctx, t, other); len(ids) != 3 {
		t.Fatalf("of another prefix's three uploads %d are left", len(ids))
	}
}

// endless is a body without end, which calls then once after so many bytes.
type endless struct {
	after, given int
	then         func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.given < e.after && e.given+len(p) >= e.after {
		e.then()
	}
	e.given += len(p)
	clear(p)
	return len(p), nil
}

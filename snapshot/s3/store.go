package s3store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/drover-io/drover/snapshot"
)

// Store implements snapshot.Store on one bucket, below one prefix.
//
// A Version is an object's ETag. For an object of one request that is (without KMS) the MD5 of its content: replacing an
// object by the same bytes does not change it.
type Store struct {
	opts   Options
	bucket string
	prefix string // "" or "…/"
	client *s3.Client
}

var _ snapshot.Store = (*Store)(nil)

// writeToken names the metadata entry that holds a random text for each write, by which it knows its own work again: the SDK
// repeats a request whose answer was lost, and the repetition is then refused because of what the first one did.
const writeToken = "drover-write"

// deleteBatch is the most that S3 deletes in one request.
const deleteBatch = 1000

// Open checks the options, the credential and that the bucket can be listed. Errors: snapshot.ErrUsage, snapshot.ErrUnreachable.
func Open(ctx context.Context, opts Options) (*Store, error) {
	opts, bucket, prefix, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		prefix += "/"
	}
	s := &Store{opts: opts, bucket: bucket, prefix: prefix}
	if s.client, err = opts.client(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	// Listing is a right that snapshots need anyway, and unlike HeadBucket it says in its answer what is wrong.
	_, err = s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &s.bucket, Prefix: aws.String(s.prefix), MaxKeys: aws.Int32(1),
	}, func(o *s3.Options) { o.Retryer = opts.retryer(min(3, opts.Attempts)) })
	if err != nil {
		return nil, s.explain(ctx, "open", "", err)
	}
	return s, nil
}

// String is the URL of the store.
func (s *Store) String() string {
	return strings.TrimSuffix("s3://"+s.bucket+"/"+s.prefix, "/")
}

func (s *Store) path(key string) *string { return aws.String(s.prefix + key) }

// Put uploads body in parts, several at once, when it is larger than one part. An upload that fails is aborted; one whose
// process dies leaves parts that no reader sees and CleanUploads removes.
func (s *Store) Put(ctx context.Context, key string, body io.Reader, size int64) error {
	uploads := &uploadClient{Client: s.client, token: rand.Text()}
	transfer := transfermanager.New(uploads, func(o *transfermanager.Options) {
		o.PartSizeBytes = s.opts.PartSize
		o.MultipartUploadThreshold = s.opts.PartSize
		o.Concurrency = s.opts.Concurrency
		o.FailTimeout = abortLimit
	})
	_, err := transfer.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket:               &s.bucket,
		Key:                  s.path(key),
		Body:                 &exactReader{from: body, left: size},
		ContentLength:        &size,
		Metadata:             map[string]string{writeToken: uploads.token},
		StorageClass:         tmtypes.StorageClass(s.opts.StorageClass),
		ServerSideEncryption: tmtypes.ServerSideEncryption(s.opts.Encryption),
		SSEKMSKeyID:          s.kmsKey(),
	})
	if err == nil {
		return nil
	}
	if uploads.orphan != nil {
		s.opts.Logger.Warn("an upload could not be aborted; its parts stay until uploads are cleaned up",
			"store", s.String(), "key", key, "error", uploads.orphan)
	}
	return s.explain(ctx, "put", key, err)
}

func (s *Store) kmsKey() *string {
	if s.opts.KMSKey == "" {
		return nil
	}
	return &s.opts.KMSKey
}

// Create is a put with If-None-Match: *.
func (s *Store) Create(ctx context.Context, key string, body []byte) (string, error) {
	return s.conditional(ctx, "create", key, body, func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
}

// Replace is a put with If-Match: version.
func (s *Store) Replace(ctx context.Context, key string, body []byte, version string) (string, error) {
	if version == "" {
		return "", fmt.Errorf("%s: replace %s: %w: no version is known of it", s, key, snapshot.ErrConflict)
	}
	return s.conditional(ctx, "replace", key, body, func(in *s3.PutObjectInput) { in.IfMatch = aws.String(`"` + version + `"`) })
}

func (s *Store) conditional(ctx context.Context, op, key string, body []byte, condition func(*s3.PutObjectInput)) (string, error) {
	token := rand.Text()
	put := func() (*s3.PutObjectOutput, error) {
		in := &s3.PutObjectInput{
			Bucket:               &s.bucket,
			Key:                  s.path(key),
			Body:                 bytes.NewReader(body),
			Metadata:             map[string]string{writeToken: token},
			StorageClass:         types.StorageClass(s.opts.StorageClass),
			ServerSideEncryption: types.ServerSideEncryption(s.opts.Encryption),
			SSEKMSKeyId:          s.kmsKey(),
		}
		condition(in)
		return s.client.PutObject(ctx, in)
	}
	out, err := put()
	// 409: another conditional write of this key was under way. S3 asks to try again, and then answers by the condition.
	for range s.opts.Attempts {
		if !isCode(err, "ConditionalRequestConflict", "OperationAborted") {
			break
		}
		out, err = put()
	}
	switch {
	case err == nil:
		return version(out.ETag), nil
	case isCode(err, "PreconditionFailed") || (op == "replace" && isAbsent(err)):
		return s.settle(ctx, op, key, token)
	default:
		return "", s.explain(ctx, op, key, err)
	}
}

// settle finds out whether a refused conditional write was refused because of itself: see writeToken.
func (s *Store) settle(ctx context.Context, op, key, token string) (string, error) {
	refused := snapshot.ErrExists
	if op == "replace" {
		refused = snapshot.ErrConflict
	}
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.path(key)})
	switch {
	case isAbsent(err) && op == "create":
		return "", fmt.Errorf("%s: %s %s: %w: it was there and is gone by now", s, op, key, refused)
	case isAbsent(err):
		return "", fmt.Errorf("%s: %s %s: %w: it was deleted", s, op, key, refused)
	case err != nil:
		return "", s.explain(ctx, op, key, err)
	case head.Metadata[writeToken] == token:
		return version(head.ETag), nil
	}
	return "", fmt.Errorf("%s: %s %s: %w", s, op, key, refused)
}

// List reads page after page (1000 keys each) as it is asked for more.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[snapshot.Object, error] {
	return func(yield func(snapshot.Object, error) bool) {
		pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.path(prefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(snapshot.Object{}, s.explain(ctx, "list", prefix, err))
				return
			}
			for _, o := range page.Contents {
				object := snapshot.Object{
					Key:      strings.TrimPrefix(aws.ToString(o.Key), s.prefix),
					Size:     aws.ToInt64(o.Size),
					Modified: aws.ToTime(o.LastModified),
					Version:  version(o.ETag),
				}
				if !yield(object, nil) {
					return
				}
			}
		}
	}
}

// Delete removes up to a thousand objects with each request.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for batch := range slices.Chunk(keys, deleteBatch) {
		in := &s3.DeleteObjectsInput{Bucket: &s.bucket, Delete: &types.Delete{Quiet: aws.Bool(true)}}
		for _, key := range batch {
			in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: s.path(key)})
		}
		out, err := s.client.DeleteObjects(ctx, in)
		if err != nil {
			return s.explain(ctx, "delete", batch[0], err)
		}
		for _, e := range out.Errors {
			if code := aws.ToString(e.Code); code != "NoSuchKey" {
				key := strings.TrimPrefix(aws.ToString(e.Key), s.prefix)
				return s.explain(ctx, "delete", key, &keyError{code: code, message: aws.ToString(e.Message)})
			}
		}
	}
	return nil
}

// cleanLimit ends Clean.
const cleanLimit = 5 * time.Minute

// Clean removes what killed processes left half-sent, as snapshot.Create and snapshot.Prune have stores do:
// CleanUploads with Options.AbandonAfter.
func (s *Store) Clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	_, err := s.CleanUploads(ctx, s.opts.AbandonAfter)
	return err
}

// CleanUploads aborts the unfinished uploads below the store's prefix that were begun longer than olderThan ago, and
// returns how many. They are what Put left when its process was killed; nobody sees them but they are paid for. A Put may
// not last longer than olderThan, or it is aborted too and fails.
func (s *Store) CleanUploads(ctx context.Context, olderThan time.Duration) (removed int, err error) {
	limit := time.Now().Add(-olderThan)
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: aws.String(s.prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return removed, s.explain(ctx, "list unfinished uploads", "", err)
		}
		for _, u := range page.Uploads {
			if aws.ToTime(u.Initiated).After(limit) {
				continue
			}
			_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: u.Key, UploadId: u.UploadId})
			if err != nil && !isCode(err, "NoSuchUpload") { // finished or aborted by another meanwhile
				return removed, s.explain(ctx, "abort an unfinished upload", strings.TrimPrefix(aws.ToString(u.Key), s.prefix), err)
			}
			removed++
			s.opts.Logger.Info("abandoned upload removed", "store", s.String(),
				"key", strings.TrimPrefix(aws.ToString(u.Key), s.prefix), "begun", aws.ToTime(u.Initiated))
		}
	}
	return removed, nil
}

// version is an ETag without its quotes, which some servers leave out in some answers.
func version(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

// exactReader gives exactly left bytes: it fails when the source ends before, or goes on after, so that neither a file cut
// short nor one that grew becomes an object. Its errors are *sourceError.
type exactReader struct {
	from io.Reader
	left int64
}

func (r *exactReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, r.atEnd()
	}
	n, err := r.from.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		return n, &sourceError{fmt.Errorf("it ends %d bytes early: %w", r.left, io.ErrUnexpectedEOF)}
	case err == nil || err == io.EOF: // at the end the next call looks whether it goes on
		return n, nil
	}
	return n, &sourceError{err}
}

func (r *exactReader) atEnd() error {
	var one [1]byte
	n, err := io.ReadFull(r.from, one[:])
	switch {
	case n > 0:
		return &sourceError{errors.New("it is longer than was said")}
	case err == io.EOF:
		return io.EOF
	}
	return &sourceError{err}
}

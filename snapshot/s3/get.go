package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/drover-io/drover/snapshot"
)

// Get reads the range part by part, several at once, each again when its connection is cut. All parts are of one version:
// an object that is replaced meanwhile makes reading fail with snapshot.ErrConflict.
//
// The transfer manager's own reader is not used: it spins while it waits for a slow reader, and does not take up a part
// whose body was cut.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("%s: get %s: a range of %d bytes from %d", s, key, length, offset)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &rangeReader{store: s, key: key, ctx: ctx, cancel: cancel, next: offset, end: -1}
	if length >= 0 {
		r.end = offset + length
	}
	if err := r.open(); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// rangeReader gives [next, end) of an object in order. The parts are fetched by a goroutine each; the queue holds them in
// order and bounds how many there are.
type rangeReader struct {
	store  *Store
	key    string
	ctx    context.Context
	cancel context.CancelFunc
	etag   string

	next, end int64 // the part to ask for next; end is known after open
	queue     []chan part
	current   []byte
	err       error
}

// cutDelay grows with each cut of one part. It is short: the server did answer, and where it does no more the SDK waits.
const cutDelay = 100 * time.Millisecond

type part struct {
	body []byte
	err  error
}

// open fetches the first part, which also tells the object's size and version.
func (r *rangeReader) open() error {
	want := r.store.opts.PartSize
	if r.end >= 0 {
		want = min(want, r.end-r.next)
	}
	if want == 0 { // HTTP has no empty range
		head, err := r.store.client.HeadObject(r.ctx, &s3.HeadObjectInput{Bucket: &r.store.bucket, Key: r.store.path(r.key)})
		if err != nil {
			return r.store.explain(r.ctx, "get", r.key, err)
		}
		r.etag = version(head.ETag)
		return nil
	}
	body, out, err := r.fetch(r.next, want)
	switch {
	case isCode(err, "InvalidRange"): // an empty object, or an offset at or past its end
		r.end = r.next
		return nil
	case err != nil:
		return r.store.explain(r.ctx, "get", r.key, err)
	}
	size, err := objectSize(out, r.next)
	if err != nil {
		return fmt.Errorf("%s: get %s: %w", r.store, r.key, err)
	}
	if r.end < 0 || r.end > size {
		r.end = size
	}
	r.etag = version(out.ETag)
	r.current = body
	r.next += int64(len(body))
	r.fill()
	return nil
}

// fill asks for parts until as many are under way as may be.
func (r *rangeReader) fill() {
	for len(r.queue) < r.store.opts.Concurrency && r.next < r.end {
		from, want := r.next, min(r.store.opts.PartSize, r.end-r.next)
		answer := make(chan part, 1)
		r.queue = append(r.queue, answer)
		r.next += want
		go func() {
			body, _, err := r.fetch(from, want)
			if err == nil && int64(len(body)) != want {
				err = fmt.Errorf("the server answers a range of %d bytes with %d", want, len(body))
			}
			answer <- part{body, err}
		}()
	}
}

func (r *rangeReader) Read(p []byte) (int, error) {
	for len(r.current) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if len(r.queue) == 0 {
			r.err = io.EOF
			continue
		}
		got := <-r.queue[0]
		r.queue = r.queue[1:]
		switch {
		case isCode(got.err, "PreconditionFailed"):
			r.err = fmt.Errorf("%s: get %s: %w while it was read: read it again", r.store, r.key, snapshot.ErrConflict)
		case got.err != nil:
			r.err = r.store.explain(r.ctx, "get", r.key, got.err)
		default:
			r.current = got.body
			r.fill()
		}
	}
	n := copy(p, r.current)
	r.current = r.current[n:]
	return n, nil
}

// Close ends the requests under way and returns when they have.
func (r *rangeReader) Close() error {
	r.cancel()
	for _, answer := range r.queue {
		<-answer
	}
	r.queue, r.current = nil, nil
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	return nil
}

// fetch reads one part whole. The SDK tries a request again until its headers are there; a body that is cut afterwards is
// for us to ask for again.
func (r *rangeReader) fetch(from, want int64) ([]byte, *s3.GetObjectOutput, error) {
	in := &s3.GetObjectInput{
		Bucket: &r.store.bucket, Key: r.store.path(r.key),
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", from, from+want-1)),
	}
	if r.etag != "" {
		in.IfMatch = aws.String(`"` + r.etag + `"`)
	}
	for attempt := 1; ; attempt++ {
		out, err := r.store.client.GetObject(r.ctx, in)
		if err != nil {
			return nil, nil, err
		}
		body, err := readBody(out, want)
		if err == nil {
			return body, out, nil
		}
		if r.ctx.Err() != nil || attempt >= r.store.opts.Attempts {
			return nil, nil, err
		}
		r.store.opts.Logger.Debug("a read was cut and is repeated", "store", r.store.String(), "key", r.key, "offset", from, "error", err)
		if err := sleep(r.ctx, time.Duration(attempt)*cutDelay); err != nil {
			return nil, nil, err
		}
	}
}

func readBody(out *s3.GetObjectOutput, want int64) ([]byte, error) {
	defer out.Body.Close()
	size := aws.ToInt64(out.ContentLength)
	if size > want {
		return nil, fmt.Errorf("the server answers a range of %d bytes with %d: it does not know ranges", want, size)
	}
	body := make([]byte, size)
	_, err := io.ReadFull(out.Body, body)
	return body, err
}

// objectSize is the size of the whole object, from "Content-Range: bytes 0-9/SIZE"; an answer without it is the whole object.
func objectSize(out *s3.GetObjectOutput, from int64) (int64, error) {
	text := aws.ToString(out.ContentRange)
	if text == "" && from == 0 {
		return aws.ToInt64(out.ContentLength), nil
	}
	_, total, _ := strings.Cut(text, "/")
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the server's Content-Range %q names no size", text)
	}
	return size, nil
}

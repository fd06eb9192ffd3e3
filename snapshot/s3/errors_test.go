package s3store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/drover-io/drover/snapshot"
)

// answer is a server that gives one answer to everything.
func answer(t *testing.T, status int, code string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		if status == http.StatusMovedPermanently {
			w.Header().Set("X-Amz-Bucket-Region", "eu-west-3")
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>the server's words</Message><RequestId>1</RequestId></Error>", code)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestWhatIsWrongIsSaidInOneLine(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		kind   error
		word   string
	}{
		{404, "NoSuchBucket", snapshot.ErrUnreachable, "there is no bucket " + testBucket},
		{403, "AccessDenied", snapshot.ErrUnreachable, "s3:ListBucket"},
		{403, "InvalidAccessKeyId", snapshot.ErrUnreachable, "not accepted"},
		{403, "SignatureDoesNotMatch", snapshot.ErrUnreachable, "not accepted"},
		{400, "ExpiredToken", snapshot.ErrUnreachable, "expired: renew"},
		{403, "RequestTimeTooSkewed", snapshot.ErrUnreachable, "clock"},
		{301, "PermanentRedirect", snapshot.ErrUnreachable, "(eu-west-3)"},
		{503, "SlowDown", snapshot.ErrUnreachable, "overloaded"},
		{507, "XMinioStorageFull", snapshot.ErrFull, "make room"},
		{403, "QuotaExceeded", snapshot.ErrFull, "make room"},
	} {
		t.Run(c.code, func(t *testing.T) {
			o := options(answer(t, c.status, c.code))
			o.Attempts = 1
			_, err := Open(t.Context(), o)
			wantOneLine(t, err, c.kind, c.word, o.URL)
			if err != nil && c.status != 301 && !strings.Contains(err.Error(), "the server's words") {
				t.Errorf("the server's words are lost: %v", err)
			}
		})
	}
}

func TestAnEndpointThatIsNotThereIsSaidInOneLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	o := options("http://" + l.Addr().String())
	o.Attempts = 2
	_, err = Open(t.Context(), o)
	wantOneLine(t, err, snapshot.ErrUnreachable, "is it running", o.Endpoint, "refused")
}

func TestAnEndpointThatDoesNotAnswerIsSaidInOneLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := options("http://" + l.Addr().String())
	o.Attempts, o.Stall = 2, 100*time.Millisecond
	_, err = Open(t.Context(), o)
	wantOneLine(t, err, snapshot.ErrUnreachable, "is it running", o.Endpoint, "timeout")
}

func TestWrongCredentialsAndBucketsOnARealServer(t *testing.T) {
	deadline(t)
	g := startGateway(t)
	wrong := options(g.URL())
	wrong.Credentials = credentials.NewStaticCredentialsProvider("drover", "wrong", "")
	_, err := Open(t.Context(), wrong)
	wantOneLine(t, err, snapshot.ErrUnreachable, "not accepted")

	wrong.Credentials = credentials.NewStaticCredentialsProvider("nobody", "wrong", "")
	_, err = Open(t.Context(), wrong)
	wantOneLine(t, err, snapshot.ErrUnreachable, "not accepted")

	other := options(g.URL())
	other.URL = "s3://no-such-bucket/x"
	_, err = Open(t.Context(), other)
	wantOneLine(t, err, snapshot.ErrUnreachable, "there is no bucket no-such-bucket")
}

func TestNoCredentialAtAllIsSaidInOneLine(t *testing.T) {
	o := options("http://127.0.0.1:1")
	o.Credentials = aws.NewCredentialsCache(aws.AnonymousCredentials{})
	_, err := Open(t.Context(), o)
	wantOneLine(t, err, snapshot.ErrUnreachable, "AWS_ACCESS_KEY_ID", o.URL)
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no scheme":            func(o *Options) { o.URL = "bucket/prefix" },
		"no bucket":            func(o *Options) { o.URL = "s3:///prefix" },
		"query":                func(o *Options) { o.URL = "s3://bucket?region=x" },
		"dots":                 func(o *Options) { o.URL = "s3://bucket/a/../b" },
		"empty part of prefix": func(o *Options) { o.URL = "s3://bucket/a//b" },
		"directory bucket":     func(o *Options) { o.URL = "s3://snaps--use1-az4--x-s3/x" },
		"endpoint":             func(o *Options) { o.Endpoint = "127.0.0.1:9000" },
		"small parts":          func(o *Options) { o.PartSize = 1 << 20 },
		"negative":             func(o *Options) { o.Concurrency = -1 },
		"unknown class":        func(o *Options) { o.StorageClass, o.Endpoint = "COLD", "" },
		"class without reads":  func(o *Options) { o.StorageClass = "DEEP_ARCHIVE" },
		"unknown encryption":   func(o *Options) { o.Encryption = "rot13" },
		"key without KMS":      func(o *Options) { o.Encryption, o.KMSKey = "AES256", "alias/x" },
	} {
		t.Run(name, func(t *testing.T) {
			o := options("http://127.0.0.1:1")
			change(&o)
			if _, err := Open(t.Context(), o); !errors.Is(err, snapshot.ErrUsage) {
				t.Fatalf("%v", err)
			}
		})
	}
}

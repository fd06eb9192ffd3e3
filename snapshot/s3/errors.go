package s3store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/drover-io/drover/snapshot"
)

// explain turns an error of the SDK into one line for an operator: which store and key, which of the snapshot package's
// errors it is, what to do, and the server's own words.
func (s *Store) explain(ctx context.Context, op, key string, err error) error {
	where := fmt.Sprintf("%s: %s", s, op)
	if key != "" {
		where += " " + key
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", where, ctx.Err())
	}
	kind, hint := s.classify(err)
	if kind == nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if hint != "" {
		hint = ": " + hint
	}
	return fmt.Errorf("%s: %w%s%s", where, kind, hint, serverWords(err))
}

// serverWords is what the server said, or the innermost cause when there was no answer. The SDK's own text names operation,
// request ids and attempts around it.
func serverWords(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return fmt.Sprintf(" (%s %s)", api.ErrorCode(), api.ErrorMessage())
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return fmt.Sprintf(" (%s)", err)
}

var (
	credentialCodes = []string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure", "InvalidToken", "UnrecognizedClientException", "XAdminUserNotFound"}
	expiredCodes    = []string{"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
	deniedCodes     = []string{"AccessDenied", "AllAccessDisabled", "AccountProblem", "KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException"}
	regionCodes     = []string{"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently"}
	// S3 itself is never full. These are of MinIO, Ceph and versitygw.
	fullCodes = []string{"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
	busyCodes = []string{"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout"}
)

// classify finds the snapshot package's error and what the operator can do.
func (s *Store) classify(err error) (kind error, hint string) { //nolint:staticcheck // kind is what is found, no failure
	status := statusOf(err)
	switch {
	case isCode(err, "NoSuchBucket"):
		return snapshot.ErrUnreachable, fmt.Sprintf("there is no bucket %s: create it, or correct the store's name", s.bucket)
	case isAbsent(err):
		return snapshot.ErrNotFound, ""
	case isCode(err, expiredCodes...):
		return snapshot.ErrUnreachable, "the AWS credential has expired: renew it"
	case isCode(err, credentialCodes...):
		return snapshot.ErrUnreachable, "the AWS credential is not accepted: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the profile"
	case isCode(err, "RequestTimeTooSkewed"):
		return snapshot.ErrUnreachable, "this host's clock is wrong: synchronise it"
	case isCode(err, regionCodes...) || status == http.StatusMovedPermanently:
		return snapshot.ErrUnreachable, "the bucket is in another region" + regionOf(err) + ": set that region"
	case isCode(err, fullCodes...) || status == http.StatusInsufficientStorage:
		return snapshot.ErrFull, "make room or raise the quota"
	case isCode(err, deniedCodes...) || status == http.StatusForbidden || status == http.StatusUnauthorized:
		return snapshot.ErrUnreachable, "access is denied: the credential needs s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject, " +
			"s3:AbortMultipartUpload and s3:ListBucketMultipartUploads here, and the use of the KMS key if there is one"
	case status == http.StatusPreconditionFailed:
		return snapshot.ErrConflict, ""
	case isCode(err, busyCodes...) || status >= 500 || status == http.StatusTooManyRequests:
		return snapshot.ErrUnreachable, "the server fails or is overloaded: try again later"
	case answered(err), isSource(err):
		return nil, ""
	}
	if s.opts.Endpoint != "" {
		return snapshot.ErrUnreachable, fmt.Sprintf("no answer from %s: is it running, and the endpoint right?", s.opts.Endpoint)
	}
	return snapshot.ErrUnreachable, "no answer from AWS: check the network, a proxy, and the region"
}

// answered reports that the server said what is wrong.
func answered(err error) bool {
	_, ok := errors.AsType[smithy.APIError](err)
	return ok || statusOf(err) != 0
}

// isSource reports that the body handed to Put failed, and not the store: nothing was asked of the network.
func isSource(err error) bool {
	_, ok := errors.AsType[*sourceError](err)
	return ok
}

// sourceError is an error of the body handed to Put.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "reading what is to be stored: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// keyError is what DeleteObjects says of one key.
type keyError struct{ code, message string }

func (e *keyError) Error() string                 { return e.code + " " + e.message }
func (e *keyError) ErrorCode() string             { return e.code }
func (e *keyError) ErrorMessage() string          { return e.message }
func (e *keyError) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }

func isCode(err error, codes ...string) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains(codes, api.ErrorCode())
}

// isAbsent: HEAD answers have no body, and the SDK makes NotFound of their status.
func isAbsent(err error) bool { return isCode(err, "NoSuchKey", "NotFound") }

// statusOf is the HTTP status of the server's answer, 0 when there was none.
func statusOf(err error) int {
	if resp, ok := errors.AsType[*awshttp.ResponseError](err); ok && resp.Response != nil {
		return resp.HTTPStatusCode()
	}
	return 0
}

func regionOf(err error) string {
	if resp, ok := errors.AsType[*awshttp.ResponseError](err); ok && resp.Response != nil {
		if region := resp.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			return " (" + region + ")"
		}
	}
	return ""
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

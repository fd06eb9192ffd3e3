package s3store

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// abortLimit ends the attempt to abort an upload.
const abortLimit = 10 * time.Second

// uploadClient is what the transfer manager of one Put calls.
type uploadClient struct {
	*s3.Client
	token  string // the upload's writeToken
	orphan error  // why the upload could not be aborted; read after the transfer manager is done
}

// CompleteMultipartUpload is a success too when the upload is gone because it was completed: see writeToken.
func (c *uploadClient) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	out, err := c.Client.CompleteMultipartUpload(ctx, in, opts...)
	if isCode(err, "NoSuchUpload") {
		head, headErr := c.Client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
		if headErr == nil && head.Metadata[writeToken] == c.token {
			return &s3.CompleteMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, ETag: head.ETag}, nil
		}
	}
	return out, err
}

// AbortMultipartUpload never fails: the transfer manager would forget why the upload did.
func (c *uploadClient) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput, opts ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	out, err := c.Client.AbortMultipartUpload(ctx, in, opts...)
	if err != nil && !isCode(err, "NoSuchUpload") {
		c.orphan = err
	}
	return out, nil
}

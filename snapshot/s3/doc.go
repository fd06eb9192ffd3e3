// Package s3store keeps snapshots in an S3 bucket, on AWS or on another server that speaks S3. DESIGN.md says what it asks
// of the server, and what happens when that fails.
package s3store

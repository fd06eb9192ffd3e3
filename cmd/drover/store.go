package main

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/snapshot"
	s3store "github.com/drover-io/drover/snapshot/s3"
)

// storeFlags name a store and how to get at it.
func storeFlags() []cli.Flag {
	return append([]cli.Flag{stringFlag("store", "", "where the snapshots are: a directory, s3://BUCKET/PREFIX, or ebs: for snapshots of the datadir's EBS volume")}, s3Flags()...)
}

// s3Flags matter for stores in S3. Credentials come from where every AWS program takes them, never from a flag.
func s3Flags() []cli.Flag {
	return []cli.Flag{
		stringFlag("s3.endpoint", "", "URL of another S3-compatible server than AWS"),
		boolFlag("s3.path-style", "put the bucket into the path, as most servers other than AWS want it"),
		stringFlag("s3.region", "", "region of the bucket (default: the AWS configuration's)"),
		stringFlag("s3.storage-class", "", "storage class of new objects (default: the bucket's)"),
		stringFlag("s3.encryption", "", "AES256, aws:kms or aws:kms:dsse (default: the bucket's)"),
		stringFlag("s3.kms-key", "", "id, alias or ARN of the key for aws:kms"),
	}
}

// openStore opens what --store, or the first part of a --snapshot REF, names.
func openStore(c *cli.Context, name string, logger *slog.Logger) (snapshot.Store, error) {
	if isEBS(name) {
		return nil, usageError(errors.New("EBS snapshots come back as volumes: run `drover snapshot restore --store ebs:` first, then start on what it mounted"))
	}
	if !strings.HasPrefix(name, "s3://") {
		return snapshot.OpenDir(name)
	}
	return s3store.Open(c.Context, s3store.Options{
		URL: name, Endpoint: c.String("s3.endpoint"), PathStyle: c.Bool("s3.path-style"), Region: c.String("s3.region"),
		StorageClass: c.String("s3.storage-class"), Encryption: c.String("s3.encryption"), KMSKey: c.String("s3.kms-key"), Logger: logger,
	})
}

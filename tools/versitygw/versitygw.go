// Package localversitygw runs versitygw, an S3 server over a directory, on this machine for tests. It is what the S3 store
// is held against under load and faults, where moto keeps everything in memory and knows no half-written files.
//
//	gateway := localversitygw.ForTest(t, localversitygw.Options{})
//	gateway.MakeBucket("drover")
//	gateway.Kill(); gateway.Restart(ctx) // same port, same data
//
// It is built from its Go module (Apache-2.0) at the version pinned here. Production code does not import it.
package localversitygw

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-io/drover/ops/process"
	localserver "github.com/drover-io/drover/tools/server"
)

// Version is the module version that Install builds.
const Version = "v1.8.0"

// The only account, which may do everything.
const (
	AccessKey = "drover"
	SecretKey = "drover-secret"
	Region    = "us-east-1"
)

// Options of a gateway.
type Options struct {
	// Dir holds the buckets, a directory each, and stays; "" = a temporary directory that Close removes. Its file system
	// must have user extended attributes.
	Dir string
	// Port to serve on; 0 = a free one.
	Port int
}

// Gateway is a running versitygw.
type Gateway struct {
	*localserver.Server
	root string
	temp string
}

// Start builds versitygw if need be and starts it. The caller must call Close.
func Start(ctx context.Context, opts Options) (*Gateway, error) {
	binary, err := Install(ctx)
	if err != nil {
		return nil, err
	}
	g := &Gateway{root: opts.Dir}
	if g.root == "" {
		if g.temp, err = os.MkdirTemp("", "drover-versitygw-"); err != nil {
			return nil, err
		}
		g.root = filepath.Join(g.temp, "buckets")
	}
	if err := os.MkdirAll(g.root, 0o755); err != nil {
		return nil, err
	}
	g.Server, err = localserver.Start(ctx, localserver.Options{
		Name: "versitygw",
		Dir:  g.temp,
		Port: opts.Port,
		Command: func(addr string) process.Command {
			return process.Command{
				Path: binary, Args: []string{"--port", addr, "--region", Region, "--health", "/health", "--quiet", "posix", g.root},
				Env: []string{"ROOT_ACCESS_KEY=" + AccessKey, "ROOT_SECRET_KEY=" + SecretKey},
			}
		},
		Ready: localserver.Answers("/health"),
	})
	if err != nil {
		os.RemoveAll(g.temp)
		return nil, err
	}
	return g, nil
}

// ForTest starts a gateway for one test, or for a suite's.
func ForTest(tb testing.TB, opts Options) *Gateway {
	tb.Helper()
	g, err := Start(context.Background(), opts)
	if err != nil {
		tb.Fatalf("versitygw: %v", err)
	}
	tb.Cleanup(g.Close)
	g.QuoteTo(tb)
	return g
}

// Close ends the process and removes a temporary directory.
func (g *Gateway) Close() {
	g.Server.Close()
	if g.temp != "" {
		os.RemoveAll(g.temp)
	}
}

// MakeBucket makes a bucket, which is a directory.
func (g *Gateway) MakeBucket(name string) error { return os.Mkdir(filepath.Join(g.root, name), 0o755) }

// BucketDir is where the objects of a bucket are, as files.
func (g *Gateway) BucketDir(name string) string { return filepath.Join(g.root, name) }

// Install builds versitygw into .cache/bin if it is not there, and returns its path.
func Install(ctx context.Context) (string, error) {
	return localserver.InstallGo(ctx, "github.com/versity/versitygw/cmd/versitygw", Version)
}

// Package localalertmanager runs a real Prometheus Alertmanager on this machine for tests.
//
//	am := localalertmanager.ForTest(t, localalertmanager.Options{Receiver: hook.URL})
//	am.URL() // its API
//
// It is built from its Go module (Apache-2.0) at the version pinned here. Production code does not import it.
package localalertmanager

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-io/drover/ops/process"
	localserver "github.com/drover-io/drover/tools/server"
)

// Options of an Alertmanager.
type Options struct {
	// Port to serve on; 0 = a free one.
	Port int
	// Receiver is a URL that gets every notification, firing and resolved, as Alertmanager's webhook document; "" = nobody.
	Receiver string
}

// Alertmanager is a running one.
type Alertmanager struct {
	*localserver.Server
	dir string
}

// Start installs Alertmanager if need be and starts it, with an empty store. The caller must call Close.
func Start(ctx context.Context, opts Options) (*Alertmanager, error) {
	binary, err := Install(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "drover-alertmanager-")
	if err != nil {
		return nil, err
	}
	a := &Alertmanager{dir: dir}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, configuration(opts), 0o644); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	a.Server, err = localserver.Start(ctx, localserver.Options{
		Name: "alertmanager", Dir: dir, Port: opts.Port, Ready: localserver.Answers("/-/ready"),
		Command: func(addr string) process.Command {
			return process.Command{Path: binary, Args: []string{
				"--config.file=" + config, "--storage.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr,
				"--cluster.listen-address=", // alone
			}}
		},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return a, nil
}

// ForTest starts one for one test.
func ForTest(tb testing.TB, opts Options) *Alertmanager {
	tb.Helper()
	a, err := Start(context.Background(), opts)
	if err != nil {
		tb.Fatalf("alertmanager: %v", err)
	}
	tb.Cleanup(a.Close)
	a.QuoteTo(tb)
	return a
}

// Close ends the process and removes its directory.
func (a *Alertmanager) Close() {
	a.Server.Close()
	os.RemoveAll(a.dir)
}

// configuration notifies as soon as can be, so that a test need not wait. JSON is YAML.
func configuration(opts Options) []byte {
	receiver := map[string]any{"name": "test"}
	if opts.Receiver != "" {
		receiver["webhook_configs"] = []any{map[string]any{"url": opts.Receiver, "send_resolved": true}}
	}
	config, _ := json.Marshal(map[string]any{ // strings cannot fail
		"route": map[string]any{
			"receiver": "test", "group_by": []string{"..."}, "group_wait": "10ms", "group_interval": "100ms", "repeat_interval": "1h",
		},
		"receivers": []any{receiver},
	})
	return config
}

// Version is the module version that Install builds.
const Version = "v0.28.1"

// Install builds Alertmanager into .cache/bin if it is not there, and returns its path.
func Install(ctx context.Context) (string, error) {
	return localserver.InstallGo(ctx, "github.com/prometheus/alertmanager/cmd/alertmanager", Version)
}

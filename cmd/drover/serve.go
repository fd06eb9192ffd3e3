package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/admin"
)

// adminFlag is where a long-running role answers about itself.
func adminFlag() cli.Flag {
	return stringFlag("admin.addr", "127.0.0.1:6060", "address for /livez, /readyz, /status and /metrics; empty: none")
}

// newRegistry is the one metrics registry of a process.
func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// role is a long-running part of Drover.
type role interface {
	admin.Source
	Run(ctx context.Context) error
}

// serve runs a role and its admin endpoints until the role ends. The endpoints listen before the role starts, so that a
// port in use is found early, and answer until it has ended, so that an orderly end can be watched.
func serve(ctx context.Context, addr string, r role, registry *prometheus.Registry, logger *slog.Logger) error {
	if addr == "" {
		return r.Run(ctx)
	}
	server, err := admin.New(admin.Options{Addr: addr, Source: r, Gatherer: registry, Logger: logger})
	if err != nil {
		return err
	}
	roleCtx, stopRole := context.WithCancel(ctx)
	defer stopRole()
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAdmin()

	adminDone := make(chan error, 1)
	go func() {
		err := server.Run(adminCtx)
		if err != nil {
			stopRole()
		}
		adminDone <- err
	}()
	logger.Info("admin endpoints are up", "addr", server.Addr())
	err = r.Run(roleCtx)
	stopAdmin()
	if adminErr := <-adminDone; adminErr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return adminErr
	}
	return err
}

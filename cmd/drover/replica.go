package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/replica"
)

func replicaCommand() *cli.Command {
	flags := append(commonFlags(), kafkaFlags()...)
	flags = append(flags,
		adminFlag(),
		stringFlag("datadir", "", "geth datadir that holds a copy of the master's chaindata"),
		stringFlag("snapshot", "", "STORE or STORE#ID to restore into an empty datadir first: a directory or s3://BUCKET/PREFIX"),
		boolFlag("until-synced", "end with 0 at the topic's end instead of serving"),
		durationFlag("ready.max-age", time.Minute, "age of the head's timestamp from which on the replica is not ready; 0: no limit"),
		durationFlag("ready.max-heartbeat-age", 15*time.Second, "silence of the master from which on the replica is not ready"),
		stringFlag("stale", string(replica.StaleDrain), "what to do with stale data: drain (not ready) or serve (ready, each answer with a warning header)"),
		intFlag("cache", 1024, "megabytes for geth's caches"),
	)
	return &cli.Command{
		Name:  "replica",
		Usage: "follow a change log and serve geth's JSON-RPC",
		Description: "Starts from the database in DATADIR, or restores a --snapshot into an empty one, applies the change log from the position stored in it, and opens the RPC\n" +
			"ports at the topic's end. Flags that geth has have geth's names and meanings.",
		Flags:  append(append(flags, rpcFlags()...), s3Flags()...),
		Action: runReplica,
	}
}

// rpcFlags have geth's names, meanings and defaults.
func rpcFlags() []cli.Flag {
	return []cli.Flag{
		boolFlag("http", "serve JSON-RPC over HTTP"),
		stringFlag("http.addr", "127.0.0.1", "address of the HTTP server"),
		intFlag("http.port", 8545, "port of the HTTP server; 0 takes a free one"),
		listFlag("http.api", "eth,net,web3", "namespaces served over HTTP"),
		listFlag("http.vhosts", "localhost", "host names that requests may be made to; * for any"),
		listFlag("http.corsdomain", "", "origins that browsers may call from; * for any"),
		boolFlag("ws", "serve JSON-RPC over WebSocket; may share the HTTP server's address and port"),
		stringFlag("ws.addr", "127.0.0.1", "address of the WebSocket server"),
		intFlag("ws.port", 8546, "port of the WebSocket server; 0 takes a free one"),
		listFlag("ws.api", "eth,net,web3", "namespaces served over WebSocket"),
		listFlag("ws.origins", "", "origins that WebSockets are accepted from; * for any"),
		uint64Flag("rpc.gascap", 50_000_000, "gas limit of eth_call and eth_estimateGas; 0: none"),
		durationFlag("rpc.evmtimeout", 5*time.Second, "time limit of eth_call"),
		intFlag("rpc.batch-request-limit", 1000, "requests in a batch"),
		intFlag("rpc.batch-response-max-size", 25_000_000, "bytes of a batch's answers"),
	}
}

func runReplica(c *cli.Context) error {
	if err := required(c, "cluster", "kafka.brokers", "datadir"); err != nil {
		return err
	}
	logger, err := newLogger(c)
	if err != nil {
		return err
	}
	registry := newRegistry()
	log, err := openRoleLog(c, "drover-replica", registry, logger)
	if err != nil {
		return err
	}
	defer log.Close()
	gasCap := c.Uint64("rpc.gascap")
	if gasCap == 0 {
		gasCap = replica.NoGasCap
	}
	var prepare func(context.Context, func(string)) error
	ref := c.String("snapshot")
	if ref != "" {
		prepare = restoreInto(c, ref, logger)
	}
	r, err := replica.New(replica.Options{
		Cluster: c.String("cluster"), Log: replica.FromLog(log), Datadir: c.String("datadir"),
		HTTP: c.Bool("http"), HTTPAddr: c.String("http.addr"), HTTPPort: c.Int("http.port"),
		HTTPAPI: split(c.String("http.api")), HTTPVhosts: split(c.String("http.vhosts")), HTTPCors: split(c.String("http.corsdomain")),
		WS: c.Bool("ws"), WSAddr: c.String("ws.addr"), WSPort: c.Int("ws.port"),
		WSAPI: split(c.String("ws.api")), WSOrigins: split(c.String("ws.origins")),
		RPCGasCap: gasCap, RPCEVMTimeout: c.Duration("rpc.evmtimeout"), Cache: c.Int("cache"),
		BatchRequestLimit: c.Int("rpc.batch-request-limit"), BatchResponseMaxSize: c.Int("rpc.batch-response-max-size"),
		UntilSynced: c.Bool("until-synced"), Stale: replica.StalePolicy(c.String("stale")),
		MaxHeadAge: c.Duration("ready.max-age"), MaxHeartbeatAge: c.Duration("ready.max-heartbeat-age"),
		Prepare: prepare, Logger: logger, Registerer: registry,
	})
	if err != nil {
		return err
	}
	return nameSnapshot(c, ref, logger, serve(c.Context, c.String("admin.addr"), r, registry, logger))
}

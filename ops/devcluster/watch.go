package devcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/drover-io/drover/admin"
	"github.com/drover-io/drover/ops/process"
)

// printEndpoints says where everything is, with something to try for each.
func (d *DevCluster) printEndpoints() {
	d.sayf("")
	d.sayf("  broker    %s", d.brokerAddr)
	for _, node := range d.nodes {
		d.sayf("  %-9s rpc %s   admin %s", node.name, node.rpc, node.admin)
	}
	replica := d.nodes[1]
	d.sayf("")
	d.sayf("Try, in another terminal:")
	d.sayf("  curl -s -H 'content-type: application/json' -d '%s' %s", rpcExample("eth_blockNumber"), replica.rpc)
	d.sayf("  curl -s -H 'content-type: application/json' -d '%s' %s", rpcExample("eth_getBlockByNumber", "latest", false), replica.rpc)
	d.sayf("  curl -s %s/status", replica.admin)
	d.sayf("  curl -s '%s/readyz?max_lag_blocks=2'", replica.admin)
	d.sayf("  curl -s %s/metrics | grep ^drover_", d.nodes[0].admin)
	d.sayf("  %s log inspect --cluster %s --kafka.brokers %s", d.opts.Drover, cluster, d.brokerAddr)
	d.sayf("Ctrl-C ends all of it.")
	d.sayf("")
}

func rpcExample(method string, params ...any) string {
	if params == nil {
		params = []any{}
	}
	body, _ := json.Marshal(struct {
		Version string `json:"jsonrpc"`
		ID      int    `json:"id"`
		Method  string `json:"method"`
		Params  []any  `json:"params"`
	}{"2.0", 1, method, params})
	return string(body)
}

// watch prints a line each second until ctx ends, or returns an error when a role ends by itself.
func (d *DevCluster) watch(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	ended := d.firstToEnd(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-ended:
			return failure(p)
		case <-ticker.C:
			d.sayf("%s", d.statusLine(ctx))
		}
	}
}

// firstToEnd delivers the first role that ends.
func (d *DevCluster) firstToEnd(ctx context.Context) <-chan *process.Process {
	ended := make(chan *process.Process, 2+len(d.replicas))
	for _, p := range append([]*process.Process{d.broker, d.master}, d.replicas...) {
		go func() {
			select {
			case <-p.Done():
				ended <- p
			case <-ctx.Done():
			}
		}()
	}
	return ended
}

// statusLine asks every node and puts the answers on one line.
func (d *DevCluster) statusLine(ctx context.Context) string {
	parts := []string{time.Now().Format("15:04:05")}
	for i, node := range d.nodes {
		var status admin.Status
		if err := d.client.get(ctx, node.admin+"/status", &status); err != nil {
			parts = append(parts, node.name+" does not answer")
			continue
		}
		text := node.name + " no head"
		if status.Head != nil {
			text = fmt.Sprintf("%s #%d", node.name, status.Head.Number)
		}
		if i == 0 {
			text += publishedText(status.Extra)
		} else {
			text += lagText(status)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "  ")
}

// publishedText tells how much the master has put on the change log since it started.
func publishedText(extra any) string {
	fields, _ := extra.(map[string]any)
	frames, _ := fields["frames"].(float64)
	bytes, _ := fields["bytes"].(float64)
	return fmt.Sprintf(" (%d frames, %s)", int64(frames), byteText(bytes))
}

// lagText tells how far a replica is behind: the time from the master's journal to its own database.
func lagText(status admin.Status) string {
	if !status.Ready {
		return " not ready: " + strings.Join(status.Reasons, ", ")
	}
	fields, _ := status.Extra.(map[string]any)
	if delay, ok := fields["applyDelayMillis"].(float64); ok {
		return fmt.Sprintf(" +%.1f ms", delay)
	}
	return ""
}

func byteText(count float64) string {
	for _, unit := range []string{"B", "KB", "MB", "GB"} {
		if count < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", count)
			}
			return fmt.Sprintf("%.1f %s", count, unit)
		}
		count /= 1000
	}
	return fmt.Sprintf("%.1f TB", count)
}

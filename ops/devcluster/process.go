package devcluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/drover-io/drover/ops/process"
)

// spawn starts a role of the cluster. Ctrl-C reaches only this process, which then ends the roles in order.
func (d *DevCluster) spawn(name string, argv ...string) (*process.Process, error) {
	return process.Start(process.Command{Name: name, Path: argv[0], Args: argv[1:], Log: d.logs, OwnGroup: true})
}

// failure describes why a role ended, with the line in its log that says so.
func failure(p *process.Process) error {
	how := "exit status 0"
	if err := p.Err(); err != nil {
		how = err.Error()
	}
	return fmt.Errorf("%s ended (%s): %s; its log is %s", p.Name, how, lastWord(p), p.LogPath())
}

// waitFor polls probe until it returns nil; it fails when ctx ends, the limit passes or the role ends.
func waitFor(ctx context.Context, p *process.Process, limit time.Duration, probe func(context.Context) error) error {
	deadline := time.After(limit)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Done():
			return failure(p)
		case <-deadline:
			return fmt.Errorf("%s is not up after %s (%w); its log is %s", p.Name, limit, err, p.LogPath())
		case <-ticker.C:
		}
	}
}

// lastWord returns the line with which drover said why it ended, or the last line of the log.
func lastWord(p *process.Process) string {
	lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "drover: ") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}

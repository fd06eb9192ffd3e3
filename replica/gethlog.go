package replica

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/log"
)

// geth logs through a package-wide logger. It is set once for the process and passes records on to the logger of the
// replica that was opened last; a process has one replica, except in tests.
var (
	gethLogOnce   sync.Once
	gethLogTarget atomic.Pointer[slog.Logger]
)

func routeGethLog(l *slog.Logger) {
	gethLogTarget.Store(l.With("from", "geth"))
	gethLogOnce.Do(func() { log.SetDefault(log.NewLogger(gethLogHandler{})) })
}

// gethLogHandler lowers geth's informational records by one level: a line for each block is the master's to log. So it
// does with warnings that only say how a replica works.
type gethLogHandler struct{ attrs []slog.Attr }

// usual says that a warning of geth's is an ordinary event here: a request that was answered with an error, and a node
// without p2p.
func usual(message string) bool {
	return strings.HasPrefix(message, "Served ") || strings.HasPrefix(message, "P2P server will be useless")
}

func (h gethLogHandler) level(l slog.Level) slog.Level {
	if l >= log.LevelWarn {
		return min(l, slog.LevelError)
	}
	return l - (slog.LevelInfo - slog.LevelDebug)
}

func (h gethLogHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return gethLogTarget.Load().Enabled(ctx, h.level(l))
}

func (h gethLogHandler) Handle(ctx context.Context, r slog.Record) error {
	level := h.level(r.Level)
	if level == slog.LevelWarn && usual(r.Message) {
		if level = slog.LevelDebug; !gethLogTarget.Load().Enabled(ctx, level) {
			return nil
		}
	}
	out := slog.NewRecord(r.Time, level, r.Message, r.PC)
	out.AddAttrs(h.attrs...)
	r.Attrs(func(a slog.Attr) bool { out.AddAttrs(a); return true })
	return gethLogTarget.Load().Handler().Handle(ctx, out)
}

func (h gethLogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return gethLogHandler{append(append([]slog.Attr{}, h.attrs...), attrs...)}
}

func (h gethLogHandler) WithGroup(string) slog.Handler { return h }

package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// leaseTime is how long a lease holds without being renewed.
const leaseTime = 30 * time.Second

// leaseBody is CLUSTER/leases/NAME.json.
type leaseBody struct {
	Format  int       `json:"format"`
	Purpose string    `json:"purpose"` // create, prune
	Host    string    `json:"host"`
	Boot    string    `json:"boot"` // this boot of this machine and its pid namespace: where PID means something
	PID     int       `json:"pid"`
	Started string    `json:"started"` // by the kernel's clock: tells a pid that was given away again
	Nonce   string    `json:"nonce"`
	Seconds float64   `json:"seconds"` // how long without a renewal until another may take it
	Renewed time.Time `json:"renewed"` // for people; clocks of hosts are not compared
}

// lease is held by the one process that may add or remove objects of a cluster. The context it gives ends when it is lost.
//
// Whether a holder is dead is not told by comparing clocks: who wants the lease watches it, and takes it when it was not
// renewed for as long as it says, by the watcher's own clock. A holder killed on this machine is known at once.
type lease struct {
	store  Store
	key    string
	body   leaseBody
	cancel context.CancelCauseFunc
	done   chan struct{}
	stop   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	version string
	renewed time.Time
}

// acquire takes the lease; ErrBusy when a live process holds it.
func acquire(ctx context.Context, store Store, key, purpose string, log *slog.Logger) (*lease, context.Context, error) {
	l := &lease{store: store, key: key, stop: make(chan struct{}), done: make(chan struct{})}
	l.body = leaseBody{
		Format: manifestFormat, Purpose: purpose, PID: os.Getpid(), Started: processStart(os.Getpid()), Boot: bootIdentity(),
		Nonce: rand.Text(), Seconds: leaseTime.Seconds(),
	}
	l.body.Host, _ = os.Hostname()
	for {
		body := l.encode()
		version, err := store.Create(ctx, key, body)
		if errors.Is(err, ErrExists) {
			var found string
			if found, err = l.outlive(ctx, log); err == nil && found != "" {
				version, err = store.Replace(ctx, key, body, found)
			}
			if err == nil && version == "" || errors.Is(err, ErrConflict) {
				continue // it was given up, or somebody else was quicker
			}
		}
		if err != nil {
			return nil, nil, err
		}
		l.version, l.renewed = version, time.Now()
		held, cancel := context.WithCancelCause(ctx)
		l.cancel = cancel
		go l.renew(held)
		return l, held, nil
	}
}

func (l *lease) encode() []byte {
	l.body.Renewed = time.Now().UTC()
	b, err := json.MarshalIndent(l.body, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return append(b, '\n')
}

// outlive returns the version of a dead holder's lease, "" when it is gone by now. It watches as long as it takes.
func (l *lease) outlive(ctx context.Context, log *slog.Logger) (string, error) {
	first, holder, err := l.look(ctx)
	if err != nil || first == "" {
		return "", err
	}
	limit := min(max(time.Duration(holder.Seconds*float64(time.Second)), time.Second), 10*time.Minute)
	switch here := holder.Boot == l.body.Boot && holder.Boot != ""; {
	case holder.Nonce == l.body.Nonce: // our own write, whose answer got lost
		return first, nil
	case here && processStart(holder.PID) != holder.Started:
		return first, nil
	case here && time.Since(holder.Renewed) < limit: // the same clock
		return "", holder.busy(l.store)
	}
	log.Info("the snapshots of the cluster are leased: watching whether the holder lives", "host", holder.Host, "purpose", holder.Purpose, "wait", limit)
	for end := time.Now().Add(limit); ; {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(min(limit/10, 2*time.Second)):
		}
		version, _, err := l.look(ctx)
		switch {
		case err != nil || version == "":
			return "", err
		case version != first:
			return "", holder.busy(l.store)
		case time.Now().After(end):
			log.Warn("took over the lease of a run that stopped renewing it", "host", holder.Host, "pid", holder.PID)
			return first, nil
		}
	}
}

func (b *leaseBody) busy(store Store) error {
	return fmt.Errorf("%w: store %s: %s runs on %s (pid %d): wait for its end", ErrBusy, store, b.Purpose, b.Host, b.PID)
}

// look returns the lease as it is in the store; an empty version when there is none.
func (l *lease) look(ctx context.Context) (version string, body leaseBody, err error) {
	for o, err := range l.store.List(ctx, l.key) {
		if err != nil {
			return "", body, err
		}
		if o.Key == l.key {
			version = o.Version
		}
	}
	if version == "" {
		return "", body, nil
	}
	b, err := readObject(ctx, l.store, l.key, 1<<16)
	if errors.Is(err, ErrNotFound) {
		return "", body, nil
	}
	if err == nil {
		err = decodeStrict(b, &body)
	}
	if err != nil {
		return "", body, fmt.Errorf("lease %s in store %s: %w", l.key, l.store, err)
	}
	return version, body, nil
}

func (l *lease) renew(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(leaseTime / 4):
		}
		if err := l.confirm(ctx); err != nil && (errors.Is(err, ErrLeaseLost) || l.fresh() != nil) {
			l.cancel(fmt.Errorf("%w: %w", ErrLeaseLost, err))
			return
		}
	}
}

// confirm renews the lease: when it returns nil, nobody else had it until now.
func (l *lease) confirm(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	version, err := l.store.Replace(ctx, l.key, l.encode(), l.version)
	if errors.Is(err, ErrConflict) {
		// A renewal whose answer got lost is ours still.
		if found, holder, lookErr := l.look(ctx); lookErr == nil && found != "" && holder.Nonce == l.body.Nonce {
			version, err = l.store.Replace(ctx, l.key, l.encode(), found)
		}
	}
	if errors.Is(err, ErrConflict) {
		return fmt.Errorf("%w: %w", ErrLeaseLost, err)
	}
	if err == nil {
		l.version, l.renewed = version, time.Now()
	}
	return err
}

// fresh is ErrLeaseLost when the last renewal is so long ago that another may have taken the lease: this process, its
// machine or the way to the store stood still.
func (l *lease) fresh() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	// By both clocks: one of them stands still while a machine is suspended.
	if age := max(time.Since(l.renewed), time.Now().Round(0).Sub(l.renewed.Round(0))); age > leaseTime*3/4 {
		return fmt.Errorf("%w: the lease %s was last renewed %v ago", ErrLeaseLost, l.key, age.Round(time.Second))
	}
	return nil
}

// release gives the lease up, if it is still held. Safe to call twice.
func (l *lease) release() {
	l.once.Do(func() {
		close(l.stop)
		<-l.done
		// Also after the context's end: the next run need not wait then.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if l.confirm(ctx) == nil {
			_ = l.store.Delete(ctx, l.key)
		}
		l.cancel(nil)
	})
}

// bootIdentity names the boot and the pid namespace in which a pid stands for one process.
func bootIdentity() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + ns
}

// processStart is when a process started, in the kernel's ticks; "" when there is none.
func processStart(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before may hold blanks
	if fields := strings.Fields(rest); len(fields) > 19 && fields[0] != "Z" {
		return fields[19]
	}
	return ""
}

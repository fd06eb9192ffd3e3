package localserver

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main runs a program that serves a person until Ctrl-C, and returns its exit code.
func Main(name string, run func(context.Context) error) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Serve waits until ctx ends, which is no error, or the server does.
func (s *Server) Serve(ctx context.Context) error {
	fmt.Println("\nCtrl-C ends it.")
	select {
	case <-ctx.Done():
		return nil
	case <-s.Exited():
		return fmt.Errorf("it ended; its log is %s", s.LogFile())
	}
}

// Answers is a probe for Options.Ready: the path is answered with 200.
func Answers(path string) func(ctx context.Context, addr string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context, addr string) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		return nil
	}
}

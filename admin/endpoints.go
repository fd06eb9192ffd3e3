package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

var errStuck = fmt.Errorf("the role did not say its status within %v", statusLimit)

// ask gets the role's Status without letting a stuck role hold the request for ever.
func (s *Server) ask(r *http.Request) (Status, error) {
	ctx, cancel := context.WithTimeout(r.Context(), statusLimit)
	defer cancel()
	answer := make(chan Status, 1)
	go func() { answer <- s.source.Status(ctx) }()
	select {
	case status := <-answer:
		if status.Reasons == nil {
			status.Reasons = []string{}
		}
		return status, nil
	case <-ctx.Done():
		return Status{}, errStuck
	}
}

func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	type live struct {
		Live    bool     `json:"live"`
		Reasons []string `json:"reasons"`
	}
	if _, err := s.ask(r); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, live{Reasons: []string{err.Error()}})
		return
	}
	writeJSON(w, http.StatusOK, live{Live: true, Reasons: []string{}})
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	limits, err := parseLimits(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	type readiness struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}
	status, err := s.ask(r)
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, readiness{Reasons: []string{err.Error()}})
		return
	}
	reasons := append(slices.Clone(status.Reasons), limits.exceeded(status, s.now())...)
	if !status.Ready && len(reasons) == 0 {
		reasons = append(reasons, "the role is not ready")
	}
	if !status.Ready || len(reasons) > len(status.Reasons) {
		writeJSON(w, http.StatusServiceUnavailable, readiness{Reasons: reasons})
		return
	}
	writeJSON(w, http.StatusOK, readiness{Ready: true, Reasons: reasons})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.ask(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, http.StatusOK, status)
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "cannot encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

// limits are the bounds that one request asks for on top of the role's own readiness; a nil one was not asked for.
type limits struct {
	lagBlocks *int64
	age       *time.Duration
}

func parseLimits(rawQuery string) (limits, error) {
	var l limits
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return l, errors.New("malformed query: use ?max_lag_blocks=N&max_age=SECONDS")
	}
	for name, values := range query {
		if len(values) != 1 {
			return l, fmt.Errorf("parameter %.40q is given %d times", name, len(values))
		}
		switch name {
		case "max_lag_blocks":
			n, err := strconv.ParseInt(values[0], 10, 64)
			if err != nil || n < 0 {
				return l, fmt.Errorf("max_lag_blocks=%.40q is not a whole number of blocks", values[0])
			}
			l.lagBlocks = &n
		case "max_age":
			age, err := parseAge(values[0])
			if err != nil || age < 0 {
				return l, fmt.Errorf("max_age=%.40q is neither seconds (30) nor a duration (1m30s)", values[0])
			}
			l.age = &age
		default:
			return l, fmt.Errorf("unknown parameter %.40q: known are max_lag_blocks and max_age", name)
		}
	}
	return l, nil
}

func parseAge(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(text)
}

// exceeded returns a reason for each limit that the status does not meet. What is not known meets no limit.
func (l limits) exceeded(status Status, now time.Time) []string {
	var reasons []string
	if l.lagBlocks != nil {
		switch lag := status.Lag.Blocks; {
		case lag == nil:
			reasons = append(reasons, "max_lag_blocks: the lag in blocks is not known")
		case *lag > *l.lagBlocks:
			reasons = append(reasons, fmt.Sprintf("max_lag_blocks: %d blocks behind, asked for at most %d", *lag, *l.lagBlocks))
		}
	}
	if l.age != nil {
		switch age, known := status.Head.Age(now); {
		case !known:
			reasons = append(reasons, "max_age: the head block's time is not known")
		case age > *l.age:
			reasons = append(reasons, fmt.Sprintf("max_age: the head block is %v old, asked for at most %v", age.Round(time.Second), *l.age))
		}
	}
	return reasons
}

package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// client follows no redirects: a secret goes to the host that was named, and nowhere else.
func client() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// parseURL refuses what is not http or https. It names the URL without what may be secret in it.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: an alert's receiver must be http://HOST/… or https://HOST/…", ErrUsage)
	}
	return u, nil
}

// shown is a URL without password, path and query: those of many webhooks are their secret.
func shown(u *url.URL) string {
	if strings.Trim(u.Path, "/") == "" && u.RawQuery == "" {
		return u.Scheme + "://" + u.Host
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// post sends one JSON document and makes one line of what goes wrong.
func post(ctx context.Context, c *http.Client, who string, to *url.URL, header http.Header, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("alert to %s: %w", who, err)
	}
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("alert to %s: %w", who, ErrUsage)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "drover")
	resp, err := c.Do(req)
	if err != nil {
		// The client's error would repeat the URL.
		if full, ok := errors.AsType[*url.Error](err); ok {
			err = full.Err
		}
		return fmt.Errorf("alert to %s: no answer: is the address right and the receiver running? (%w)", who, err)
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	words := oneLine(string(said))
	if words != "" {
		words = ": " + words
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode >= 500:
		return fmt.Errorf("alert to %s: it fails or is overloaded (%s%s)", who, resp.Status, words)
	case resp.StatusCode < 400:
		return fmt.Errorf("alert to %s: %w: it redirects, which is not followed: name the final address (%s)", who, ErrRefused, resp.Status)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("alert to %s: %w: check the secret (%s%s)", who, ErrRefused, resp.Status, words)
	}
	return fmt.Errorf("alert to %s: %w (%s%s)", who, ErrRefused, resp.Status, words)
}

// oneLine makes a receiver's words fit into an error: no control characters, single blanks.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return strings.Join(strings.Fields(text), " ")
}

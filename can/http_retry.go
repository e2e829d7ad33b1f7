package can

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// attemptKey carries a *attempt in the context of a request.
type attemptKey struct{}

// attempt says how the requests of one call may be repeated.
type attempt struct {
	deadline time.Time // zero when the call has none
	asset    bool      // a 500 is about this one asset, repeating is no use
}

// checkRetry repeats only calls that were marked as repeatable, and only where
// waiting still fits into their deadline.
func (c *HTTPClient) checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	if a == nil {
		return false, nil
	}
	if err != nil {
		return true, nil
	}
	wait := parseRetryAfter(resp.Header.Get("Retry-After"), c.opts.Now())
	if !a.deadline.IsZero() && time.Until(a.deadline) <= wait {
		return false, nil // the caller learns how long to wait
	}
	switch resp.StatusCode {
	case http.StatusInternalServerError:
		return !a.asset, nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable,
		http.StatusBadGateway, http.StatusGatewayTimeout:
		return true, nil
	}
	return false, nil
}

// backoff draws the wait from [0, base·2ⁿ] ("full jitter", M. Brooker,
// Exponential Backoff And Jitter, AWS 2015) and adds what the service asked for,
// so that clients told the same time do not come back together.
func (c *HTTPClient) backoff(base, limit time.Duration, n int, resp *http.Response) time.Duration {
	span := limit
	if f := float64(base) * math.Pow(2, float64(n)); f < float64(limit) {
		span = time.Duration(f)
	}
	wait := time.Duration(c.opts.Jitter() * float64(span))
	if resp != nil {
		wait += parseRetryAfter(resp.Header.Get("Retry-After"), c.opts.Now())
	}
	return max(0, min(wait, limit, maxWait))
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, 10.2.3). The result is
// in [0, 30 s], and 0 for what can't be understood.
func parseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > 64 {
		return 0
	}
	digits := strings.TrimLeft(s, "0123456789") == ""
	if digits {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n > int64(maxWait/time.Second) {
			return maxWait
		}
		return time.Duration(n) * time.Second
	}
	t, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return max(0, min(t.Sub(now), maxWait))
}

// checkRedirect keeps reads within the origin of the base URL and refuses to
// repeat anything else elsewhere; the redirect itself is then the answer.
func (c *HTTPClient) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects || via[0].Method != http.MethodGet || !sameOrigin(req.URL, c.base) {
		return http.ErrUseLastResponse
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		switch {
		case u.Port() != "":
			return u.Port()
		case u.Scheme == "https":
			return "443"
		default:
			return "80"
		}
	}
	return a.User == nil && a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

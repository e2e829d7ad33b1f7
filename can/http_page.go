package can

import (
	"context"
	"errors"
	"strconv"
	"sync"
)

// errLong says that an answer is longer than the client reads.
var errLong = errors.New("answer is too long")

// firstLimit is the limit that a page without one gets when it turns out to be too
// long.
const firstLimit = 256

// pageLimit is how many assets fit into a page of maxListBytes, as far as is known.
// After a page that did not fit it is small, and grows again by an eighth with each
// page that did.
type pageLimit struct {
	mu    sync.Mutex
	limit int // 0 while every page fitted
}

// of returns the limit to ask for where the caller wants pages of n assets, 0 being
// the service's choice.
func (p *pageLimit) of(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && (n == 0 || n > p.limit) {
		return p.limit
	}
	return n
}

// fitted takes note of a page that was asked for with a limit of at most n instead
// of the one wanted.
func (p *pageLimit) fitted(n, wanted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit != n || n == wanted {
		return // another call has found out more since, or nothing was learned
	}
	if p.limit += n/8 + 1; wanted > 0 && p.limit >= wanted {
		p.limit = 0
	}
}

// long takes note of a page that did not fit and returns the limit to try instead;
// 0 says that there is none.
func (p *pageLimit) long(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case n == 1:
		p.limit = 1
		return 0
	case n == 0:
		n = 2 * firstLimit
	}
	if n /= 2; p.limit == 0 || n < p.limit {
		p.limit = n
	}
	return n
}

// callFitting asks for a page of at most so many assets, 0 being the service's
// choice. One that is too long is asked for again with fewer: a service may cap
// pages anyhow, so that callers take them as they come. A single asset that is too
// long is [ErrInvalid].
func (c *HTTPClient) callFitting(ctx context.Context, r *request, wanted int) (page, error) {
	n := c.pages.of(wanted)
	for {
		if n > 0 {
			r.query.Set("limit", strconv.Itoa(n))
		}
		p, err := c.callPage(ctx, r)
		switch {
		case err == nil:
			c.pages.fitted(n, wanted)
			return p, nil
		case !errors.Is(err, errLong):
			return page{}, err
		}
		if n = c.pages.long(n); n == 0 {
			return page{}, err
		}
	}
}

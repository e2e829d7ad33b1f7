package can

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// DefaultPath is the path of the API on a CAN Service; [NewHTTPClient] adds it to
// a base URL that has none.
const DefaultPath = "/api/v1/can/0"

// Limits of the HTTP client.
const (
	maxListBytes   = 8 << 20   // one page of a listing or of changes
	maxAnswerBytes = 1 << 20   // any other JSON answer
	maxErrorBytes  = 64 << 10  // what is read of an error's body
	maxEventBytes  = 1 << 20   // one line, and one event, of the event stream
	maxHeaderBytes = 256 << 10 // response headers
	maxRedirects   = 3
	maxWait        = 30 * time.Second // longest wait between two attempts
)

// HTTPOptions tunes an [HTTPClient]. The zero value is ready for use.
type HTTPOptions struct {
	// Token, when not empty, is sent as a bearer token, only ever to the origin of
	// the base URL.
	Token string
	// Transport carries the requests; nil is a pooled transport of the client's
	// own that uses no proxy. The client closes idle connections of a transport
	// given here, but not the transport.
	Transport http.RoundTripper
	// CallTimeout bounds each call but Open, Ingest and Watch from beginning to
	// end, retries included, and the wait for the headers of a watch; 0 is 30 s.
	CallTimeout time.Duration
	// IdleTimeout bounds, for Open and Ingest, each wait for the service: for the
	// headers, for the next bytes, for it to take the next bytes. Time that the
	// caller spends between reads, and the source of an ingest takes, does not
	// count. 0 is 30 s.
	IdleTimeout time.Duration
	// MinRate is the rate in bytes per second below which, measured over
	// IdleTimeout of waiting, a transfer counts as stalled; 0 is 1024, negative
	// is none.
	MinRate int64
	// AnswerTimeout bounds the wait for the answer to an ingest whose content was
	// sent in full; 0 is 2 min.
	AnswerTimeout time.Duration
	// WatchIdle is how long a watch may stay without a sign of life, a keep-alive
	// comment being one; 0 is 2 min, negative is for ever.
	WatchIdle time.Duration
	// Retries is how often a call that may safely be repeated (list, open, meta,
	// changes, trash) is repeated; 0 is 2, negative is none.
	Retries int
	// RetryWait is the base of the exponential wait between attempts, from which
	// the actual wait is drawn at random; 0 is 250 ms. No wait exceeds 30 s.
	RetryWait time.Duration
	// Reprobe is how long the client believes that the service lacks an optional
	// call before it tries again; 0 is 10 min.
	Reprobe time.Duration
	// Now is the clock for dates in Retry-After and for Reprobe; nil is time.Now.
	Now func() time.Time
	// Jitter returns a random number in [0, 1); nil is math/rand/v2. It must be
	// safe for concurrent use.
	Jitter func() float64
}

func (o HTTPOptions) withDefaults() HTTPOptions {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.CallTimeout, 30*time.Second)
	def(&o.IdleTimeout, 30*time.Second)
	def(&o.AnswerTimeout, 2*time.Minute)
	def(&o.WatchIdle, 2*time.Minute)
	def(&o.RetryWait, 250*time.Millisecond)
	def(&o.Reprobe, 10*time.Minute)
	if o.MinRate == 0 {
		o.MinRate = 1024
	}
	switch {
	case o.Retries == 0:
		o.Retries = 2
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return o
}

func (o HTTPOptions) validate() error {
	for _, d := range []time.Duration{o.CallTimeout, o.IdleTimeout, o.AnswerTimeout, o.RetryWait, o.Reprobe} {
		if d < 0 {
			return errors.New("can: negative duration in HTTPOptions")
		}
	}
	for _, r := range o.Token {
		if r <= ' ' || r > '~' {
			return errors.New("can: the token holds characters that a header can't carry")
		}
	}
	return nil
}

// HTTPClient is the client of a CAN Service reached over HTTP. It implements
// [Client], [MetaReader], [MetaUpdater], [Trasher], [Watcher], [ChangeLister] and
// [Ranger] and is safe for concurrent use.
//
// Which optional calls the service has is found out by using them. A 405 or 501
// means that a call is missing. A 404 to a call about one asset means so too, if
// that call has never succeeded and the service does serve the asset itself;
// otherwise it means [ErrNotFound]. A missing call is remembered, and answered
// with [ErrUnsupported] without asking the service, for HTTPOptions.Reprobe.
//
// Calls that may be repeated are, a few times and within their deadline; an
// ingest and a metadata update never are. Redirects are followed for reads and
// within the origin of the base URL only. Answers are bounded: 8 MiB for a page of
// a listing, which is asked for again with fewer assets when it is longer, 1 MiB for
// other JSON.
type HTTPClient struct {
	base  *url.URL
	opts  HTTPOptions
	http  *http.Client
	retry *retryablehttp.Client

	closing context.Context
	close   context.CancelFunc
	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup

	meta, update, trash, events, changes ability
	noRanges                             flag
	pages                                pageLimit
}

var (
	_ Client       = (*HTTPClient)(nil)
	_ MetaReader   = (*HTTPClient)(nil)
	_ MetaUpdater  = (*HTTPClient)(nil)
	_ Trasher      = (*HTTPClient)(nil)
	_ Watcher      = (*HTTPClient)(nil)
	_ ChangeLister = (*HTTPClient)(nil)
	_ Ranger       = (*HTTPClient)(nil)
)

// NewHTTPClient returns a client for the service at baseURL, such as
// "http://127.0.0.1:3210/api/v1/can/0"; a URL without a path gets [DefaultPath].
// It does not contact the service.
func NewHTTPClient(baseURL string, opts HTTPOptions) (*HTTPClient, error) {
	u, err := parseBase(baseURL)
	if err != nil {
		return nil, err
	}
	if err := opts.validate(); err != nil {
		return nil, err
	}
	c := &HTTPClient{base: u, opts: opts.withDefaults()}
	rt := opts.Transport
	if rt == nil {
		rt = newTransport()
	}
	c.closing, c.close = context.WithCancel(context.Background())
	c.http = &http.Client{Transport: rt, CheckRedirect: c.checkRedirect}
	c.retry = &retryablehttp.Client{
		HTTPClient:   c.http,
		RetryWaitMin: c.opts.RetryWait,
		RetryWaitMax: maxWait,
		RetryMax:     c.opts.Retries,
		CheckRetry:   c.checkRetry,
		Backoff:      c.backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return c, nil
}

func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The text may hold a password: it is not repeated.
		return nil, errors.New("can: the base URL can't be read")
	}
	switch {
	case u.User != nil:
		return nil, errors.New("can: the base URL must not hold credentials")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("can: base URL with scheme %q: want http or https", u.Scheme)
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("can: base URL without a host")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("can: base URL with a query or fragment")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	if u.Path == "" {
		u.Path = DefaultPath
	}
	return u, nil
}

func newTransport() *http.Transport {
	d := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		DialContext:            d.DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConns:           32,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
	}
}

// Close ends all calls and watches, waits for them to return and closes idle
// connections. Readers that are still open fail with [ErrClosed]. Later calls
// return [ErrClosed]; Close itself may be called again.
func (c *HTTPClient) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.close()
	c.calls.Wait()
	c.http.CloseIdleConnections()
	return nil
}

// begin opens a call: its context ends with the client, and the function returned
// must be called once when the call returns. cancel ends the context with a
// cause; release lets go of the client's hold on the context.
func (c *HTTPClient) begin(parent context.Context) (ctx context.Context, cancel context.CancelCauseFunc, release func(), err error) {
	if err := parent.Err(); err != nil {
		return nil, nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, nil, ErrClosed
	}
	c.calls.Add(1)
	ctx, cancel = context.WithCancelCause(parent)
	stop := context.AfterFunc(c.closing, func() { cancel(ErrClosed) })
	return ctx, cancel, func() { stop() }, nil
}

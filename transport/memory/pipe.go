package memory

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/cansync/cansync/transport"
)

// pipe is one direction of a stream: a ring of bytes, each of which may be read
// from a certain time on.
type pipe struct {
	d      *direction
	rd, wd deadline

	readable, writable signal

	mu     sync.Mutex
	ring   []byte // grows up to limit
	limit  int
	start  int       // of the unread bytes
	size   int       // unread bytes
	late   []segment // of the unread bytes, in order, those that arrive later
	eof    time.Time // when the end arrives
	ended  bool      // closed by the writer
	closed bool      // closed by the reader
	broken bool
	cut    bool // reset as the writer sees it; the reader still gets what was written
}

// segment is a number of bytes, and when they arrive.
type segment struct {
	n  int
	at time.Time
}

func newPipe(limit int, d *direction) *pipe {
	return &pipe{d: d, limit: limit, readable: newSignal(), writable: newSignal(), rd: newDeadline(), wd: newDeadline()}
}

// signal wakes one waiter. A token may be left over: waiters look again.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		n, wait, err := p.tryRead(b)
		if n > 0 || err != nil || (len(b) == 0 && wait == 0) {
			return n, err
		}
		if err := p.wait(p.readable, &p.rd, wait); err != nil {
			return 0, err
		}
	}
}

// wait blocks until the signal, the deadline, or for d when that is positive.
func (p *pipe) wait(s signal, dl *deadline, d time.Duration) error {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-s:
	case <-timer:
	case <-dl.done():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// tryRead reads what is there. Otherwise it returns how long to wait, or 0 when
// that is unknown.
func (p *pipe) tryRead(b []byte) (n int, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken:
		p.readable.wake()
		return 0, 0, transport.ErrReset
	case p.closed:
		p.readable.wake()
		return 0, 0, io.ErrClosedPipe
	case p.rd.passed():
		return 0, 0, os.ErrDeadlineExceeded
	}
	avail := p.size
	if len(p.late) > 0 {
		avail, wait = p.arrived()
	}
	if avail == 0 {
		if p.size == 0 && p.cut {
			p.readable.wake()
			return 0, 0, transport.ErrReset
		}
		if p.size > 0 || !p.ended {
			return 0, wait, nil
		}
		if d := time.Until(p.eof); !p.eof.IsZero() && d > 0 {
			return 0, d, nil
		}
		p.readable.wake()
		return 0, 0, io.EOF
	}
	n = min(avail, len(b))
	k := copy(b[:n], p.ring[p.start:min(p.start+n, len(p.ring))])
	copy(b[k:n], p.ring)
	p.take(n)
	if p.size > 0 || p.ended || p.cut {
		p.readable.wake()
	}
	if n > 0 {
		p.writable.wake()
	}
	return n, 0, nil
}

// take drops n bytes from the front.
func (p *pipe) take(n int) {
	p.size -= n
	p.start += n
	if p.start >= len(p.ring) {
		p.start -= len(p.ring)
	}
	if p.size == 0 {
		p.start = 0
	}
	for n > 0 && len(p.late) > 0 {
		k := min(n, p.late[0].n)
		p.late[0].n -= k
		n -= k
		if p.late[0].n == 0 {
			p.late = p.late[1:]
		}
	}
}

// arrived returns how many bytes at the front have arrived, and when there are
// none how long until the first do.
func (p *pipe) arrived() (n int, wait time.Duration) {
	now := time.Now()
	for _, s := range p.late {
		if s.at.After(now) {
			if n == 0 {
				return 0, s.at.Sub(now)
			}
			return n, 0
		}
		n += s.n
	}
	return n, 0
}

func (p *pipe) write(b []byte) (int, error) {
	sent := 0
	for {
		n, err := p.tryWrite(b[sent:])
		sent += n
		if err != nil || sent == len(b) {
			if sent > 0 {
				p.d.writes.Add(1)
				p.d.bytes.Add(uint64(sent))
			}
			return sent, err
		}
		if n > 0 {
			continue
		}
		if err := p.wait(p.writable, &p.wd, 0); err != nil {
			if sent > 0 {
				p.d.writes.Add(1)
				p.d.bytes.Add(uint64(sent))
			}
			return sent, err
		}
	}
}

// maxSegment bounds the bytes that arrive together, so that bandwidth is felt
// within a large write as well.
const maxSegment = 16 << 10

func (p *pipe) tryWrite(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken || p.cut:
		p.writable.wake()
		return 0, transport.ErrReset
	case p.ended:
		p.writable.wake()
		return 0, io.ErrClosedPipe
	case p.closed:
		p.writable.wake()
		return 0, transport.ErrReset
	case p.wd.passed():
		return 0, os.ErrDeadlineExceeded
	}
	n := min(len(b), p.limit-p.size)
	if n == 0 {
		return 0, nil
	}
	slow := p.slow()
	if slow {
		n = min(n, maxSegment)
	}
	p.grow(n)
	end := p.start + p.size
	if end >= len(p.ring) {
		end -= len(p.ring)
	}
	k := copy(p.ring[end:], b[:n])
	copy(p.ring, b[k:n])
	p.size += n
	if slow {
		if p.size > n && len(p.late) == 0 { // the link was fast until now
			p.late = append(p.late, segment{n: p.size - n})
		}
		p.late = append(p.late, segment{n: n, at: p.d.arrival(n)})
	}
	p.readable.wake()
	if p.size < p.limit {
		p.writable.wake()
	}
	return n, nil
}

// slow says whether bytes written now arrive later. Once some are on their way,
// those behind them cannot overtake.
func (p *pipe) slow() bool {
	l := p.d.link.Load()
	return l.Latency > 0 || l.Bandwidth > 0 || l.Jitter > 0 || len(p.late) > 0
}

// grow makes room for n more bytes, within the limit.
func (p *pipe) grow(n int) {
	if p.size+n <= len(p.ring) {
		return
	}
	c := max(len(p.ring), 1<<10)
	for c < p.size+n {
		c *= 2
	}
	ring := make([]byte, min(c, p.limit))
	k := copy(ring, p.ring[p.start:min(p.start+p.size, len(p.ring))])
	copy(ring[k:p.size], p.ring)
	p.ring, p.start = ring, 0
}

func (p *pipe) closeWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken || p.cut {
		return transport.ErrReset
	}
	if !p.ended {
		p.ended = true
		p.eof = p.d.arrival(0)
		p.readable.wake()
		p.writable.wake()
		p.wd.set(time.Time{})
	}
	return nil
}

// closeRead drops what was not read; the writer's next call fails.
func (p *pipe) closeRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.free()
}

// cutOff resets the pipe for its writer, and for its reader once that has read what
// was written.
func (p *pipe) cutOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.readable.wake()
	p.writable.wake()
}

func (p *pipe) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = true
	p.free()
}

func (p *pipe) free() {
	p.ring, p.start, p.size, p.late = nil, 0, 0, nil
	p.readable.wake()
	p.writable.wake()
	p.rd.set(time.Time{})
	p.wd.set(time.Time{})
}

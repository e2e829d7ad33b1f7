package blob

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"pgregory.net/rapid"
)

var errInjected = errors.New("injected fault")

// crashFS is a directory in memory that forgets, on a crash, what was not synced:
// of each file any subset of the writes since its last sync, and of the names the
// newest changes since the last directory sync. It can fail at a chosen step.
type crashFS struct {
	mu      sync.Mutex
	now     map[string]*inode
	durable map[string]*inode
	log     []func(map[string]*inode) // name changes not yet durable
	step    int
	failAt  int // step that fails; 0 none
	faults  int
	failErr error
}

type inode struct {
	now, durable []byte
	log          []func([]byte) []byte
}

func newCrashFS() *crashFS {
	return &crashFS{now: map[string]*inode{}, durable: map[string]*inode{}, failErr: errInjected}
}

func (c *crashFS) fault() error {
	c.step++
	if c.step == c.failAt {
		c.faults++
		return c.failErr
	}
	return nil
}

// crash drops what was not durable, as the draws decide.
func (c *crashFS) crash(t *rapid.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := rapid.IntRange(0, len(c.log)).Draw(t, "name changes kept")
	for _, change := range c.log[:keep] {
		change(c.durable)
	}
	c.log, c.now = nil, map[string]*inode{}
	for name, n := range c.durable {
		for _, write := range n.log {
			if rapid.Bool().Draw(t, "write kept") {
				n.durable = write(n.durable)
			}
		}
		n.log, n.now = nil, append([]byte(nil), n.durable...)
		c.now[name] = n
	}
}

func (c *crashFS) change(fn func(map[string]*inode)) {
	fn(c.now)
	c.log = append(c.log, fn)
}

func (c *crashFS) open(name string, flag int) (stageFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fault(); err != nil {
		return nil, err
	}
	n := c.now[name]
	switch {
	case n != nil && flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case n == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case n == nil:
		n = &inode{}
		c.change(func(m map[string]*inode) { m[name] = n })
	}
	return &crashFile{c: c, n: n}, nil
}

func (c *crashFS) rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fault(); err != nil {
		return err
	}
	n := c.now[from]
	c.change(func(m map[string]*inode) {
		delete(m, from)
		m[to] = n
	})
	return nil
}

func (c *crashFS) remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fault(); err != nil {
		return err
	}
	c.change(func(m map[string]*inode) { delete(m, name) })
	return nil
}

func (c *crashFS) syncDir() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fault(); err != nil {
		return err
	}
	for _, change := range c.log {
		change(c.durable)
	}
	c.log = nil
	return nil
}

type crashFile struct {
	c      *crashFS
	n      *inode
	closed bool
}

func (f *crashFile) do(fn func() error) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	if err := f.c.fault(); err != nil {
		return err
	}
	return fn()
}

func (f *crashFile) write(fn func([]byte) []byte) {
	f.n.now = fn(f.n.now)
	f.n.log = append(f.n.log, fn)
}

func (f *crashFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(func() error {
		n = copy(p, f.n.now[min(int64(len(f.n.now)), off):])
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	p = append([]byte(nil), p...)
	err := f.do(func() error {
		f.write(func(b []byte) []byte {
			if grow := int(off) + len(p) - len(b); grow > 0 {
				b = append(b, make([]byte, grow)...)
			}
			copy(b[off:], p)
			return b
		})
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *crashFile) reserve(size int64) error {
	return f.do(func() error {
		f.write(func(b []byte) []byte {
			if int64(len(b)) < size {
				b = append(b, make([]byte, size-int64(len(b)))...)
			}
			return b
		})
		return nil
	})
}

func (f *crashFile) size() (n int64, err error) {
	err = f.do(func() error {
		n = int64(len(f.n.now))
		return nil
	})
	return n, err
}

// sync that fails loses some of the writes for good while the system goes on
// showing them, as Linux does.
func (f *crashFile) sync() error {
	err := f.do(func() error {
		for _, write := range f.n.log {
			f.n.durable = write(f.n.durable)
		}
		f.n.log = nil
		return nil
	})
	if err != nil && !f.closed {
		f.n.log = nil
	}
	return err
}

func (f *crashFile) forget(int64, int64) {}

func (f *crashFile) Close() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.closed = true
	return nil
}

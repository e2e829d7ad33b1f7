package service

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// maxThumbCache is the size from which on the oldest cached thumbnails are
// removed, in bytes; maxThumbFile is the largest that is kept.
const (
	maxThumbCache = 256 << 20
	maxThumbFile  = 16 << 20
)

// cacheSize keeps count of the cache, so that it needn't be listed to know that
// it has room.
type cacheSize struct {
	mu      sync.Mutex
	size    int64
	pruning bool
}

// add counts n bytes in and reports whether the caller is to prune.
func (c *cacheSize) add(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size += n
	if c.size <= maxThumbCache || c.pruning {
		return false
	}
	c.pruning = true
	return true
}

func (c *cacheSize) done(size int64) {
	c.mu.Lock()
	c.size, c.pruning = size, false
	c.mu.Unlock()
}

// cached reads a thumbnail from the cache.
func (t *thumbnails) cached(name string) (thumb, bool) {
	if t.s.cfg.NoThumbnailCache {
		return thumb{}, false
	}
	f, err := t.s.files.root.Open(name)
	if err != nil {
		return thumb{}, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxThumbFile+1))
	if err != nil || len(data) > maxThumbFile {
		return thumb{}, false
	}
	switch {
	case matches("\xff\xd8\xff", data):
		return thumb{data: data, mime: "image/jpeg"}, true
	case matches("\x89PNG", data):
		return thumb{data: data, mime: "image/png"}, true
	}
	return thumb{}, false
}

// keep puts a thumbnail into the cache; a cache that can't be written is no
// reason to fail.
func (t *thumbnails) keep(name string, th thumb) {
	if t.s.cfg.NoThumbnailCache || len(th.data) > maxThumbFile {
		return
	}
	temp, err := t.s.files.writeTemp(th.data, false)
	if err == nil {
		if err = t.s.files.root.Rename(temp, name); err != nil {
			_ = t.s.files.remove(temp)
		}
	}
	if err != nil {
		t.s.log.Warn("caching a thumbnail", "err", err)
		return
	}
	if t.add(int64(len(th.data))) {
		t.prune()
	}
}

type cachedFile struct {
	name string
	size int64
	at   time.Time
}

func (t *thumbnails) list() ([]cachedFile, error) {
	d, err := t.s.files.root.Open(thumbDir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var out []cachedFile
	for {
		list, err := d.ReadDir(1024)
		for _, e := range list {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				out = append(out, cachedFile{name: thumbDir + "/" + e.Name(), size: info.Size(), at: info.ModTime()})
			}
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

// measure counts what earlier runs left in the cache.
func (t *thumbnails) measure() {
	files, err := t.list()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.s.log.Warn("listing the thumbnail cache", "err", err)
	}
	var size int64
	for _, f := range files {
		size += f.size
	}
	if t.add(size) {
		t.prune()
	}
}

// prune removes the oldest thumbnails until four fifths of the room are taken.
func (t *thumbnails) prune() {
	files, err := t.list()
	if err != nil {
		t.s.log.Warn("listing the thumbnail cache", "err", err)
	}
	slices.SortFunc(files, func(a, b cachedFile) int { return cmp.Compare(b.at.UnixNano(), a.at.UnixNano()) })
	var size int64
	for _, f := range files {
		if size+f.size > maxThumbCache/5*4 {
			if err := t.s.files.remove(f.name); err != nil {
				t.s.log.Warn("pruning the thumbnail cache", "err", err)
			}
			continue
		}
		size += f.size
	}
	t.done(size)
}

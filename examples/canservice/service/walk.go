package service

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/cansync/cansync/can"
)

// entry is a file of an asset found below the root.
type entry struct {
	timestamp int64
	hash      can.Digest
	trashed   bool
	meta      bool // the metadata file, not the content
	info      fs.DirEntry
}

func (e *entry) asset() asset {
	return asset{Hash: e.hash, Timestamp: e.timestamp, Trashed: e.trashed}
}

func (e *entry) path() string {
	a := e.asset()
	p := place(&a)
	if e.meta {
		p += metaSuffix
	}
	return p
}

// walk calls fn for the files of assets, those outside the trash first. Other
// names are left alone, except for temporary files, which are given to temp.
func (f *files) walk(fn func(e entry) error, temp func(path string) error) error {
	for _, dir := range []string{".", trashDir} {
		if err := f.walkDir(dir, fn, temp); err != nil {
			return err
		}
	}
	return nil
}

func (f *files) walkDir(dir string, fn func(e entry) error, temp func(path string) error) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		list, err := d.ReadDir(1024)
		for _, info := range list {
			name := info.Name()
			if !info.Type().IsRegular() {
				continue
			}
			if dir == "." && strings.HasPrefix(name, tempPrefix) {
				if err := temp(name); err != nil {
					return err
				}
				continue
			}
			base, meta := strings.CutSuffix(name, metaSuffix)
			ts, hash, ok := parseBlobName(base)
			if !ok {
				continue
			}
			if err := fn(entry{timestamp: ts, hash: hash, trashed: dir == trashDir, meta: meta, info: info}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// load makes an asset of content found at e: its metadata file tells the rest.
// The error says what is wrong with the metadata; the asset can be used anyway.
func (f *files) load(e entry) (asset, error) {
	a := e.asset()
	info, err := e.info.Info()
	if err != nil {
		return a, err
	}
	a.Size = info.Size()
	m, size, err := f.readMeta(place(&a) + metaSuffix)
	if err != nil {
		a.metadata, _ = metadata{}.check()
		return a, err
	}
	a.metadata = m
	a.Corrupted = size != a.Size
	return a, nil
}

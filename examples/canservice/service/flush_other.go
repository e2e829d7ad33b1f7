//go:build !linux

package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// flushTree makes the named files below dir, and dir itself, durable.
func flushTree(dir *os.File, names []string) error {
	for _, n := range names {
		f, err := os.OpenFile(filepath.Join(dir.Name(), n), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // moved or replaced since
		}
		if err != nil {
			return err
		}
		err = f.Sync()
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	_ = dir.Sync() // not every system can flush a directory
	return nil
}

// flushNeedsNames says whether flushTree wants the names of the files written.
const flushNeedsNames = true

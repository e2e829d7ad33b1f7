package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// stageFS is what a stage needs of a directory; tests put one that fails and
// crashes in its place.
type stageFS interface {
	open(name string, flag int) (stageFile, error)
	rename(from, to string) error
	// remove succeeds when there is no such file.
	remove(name string) error
	// syncDir makes the names durable: files created, renamed, removed.
	syncDir() error
}

type stageFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// reserve sets the length and takes the disk space for it.
	reserve(size int64) error
	size() (int64, error)
	// sync makes the contents durable.
	sync() error
	// forget says that a range which is durable will hardly be read again. Nothing
	// depends on it.
	forget(off, n int64)
}

type rootFS struct{ dir *os.Root }

var _ stageFS = rootFS{}

func (r rootFS) open(name string, flag int) (stageFile, error) {
	f, err := r.dir.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return rootFile{f}, nil
}

func (r rootFS) rename(from, to string) error { return r.dir.Rename(from, to) }

func (r rootFS) remove(name string) error {
	if err := r.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (r rootFS) syncDir() error {
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there, and needn't be
	}
	d, err := r.dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type rootFile struct{ *os.File }

func (f rootFile) reserve(size int64) error { return reserve(f.File, size) }

func (f rootFile) sync() error { return f.Sync() }

func (f rootFile) forget(off, n int64) { _ = forget(f.File, off, n) }

func (f rootFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: not a regular file", fs.ErrInvalid)
	}
	return info.Size(), nil
}

// OpenStageDir makes the directory for staged blobs where it is missing, with
// mode 0700, and opens it.
func OpenStageDir(path string) (*os.Root, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return os.OpenRoot(path)
}

// noSpace turns the errors of a full disk or quota into [ErrNoSpace].
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

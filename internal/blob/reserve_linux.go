package blob

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const errQuota = unix.EDQUOT

// reserve allocates the blocks of the file. File systems that can't do that get
// the length alone: a full disk then shows in the writes.
func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) {
		for {
			if inner = unix.Fallocate(int(fd), 0, 0, size); !errors.Is(inner, unix.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = inner
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

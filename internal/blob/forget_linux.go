package blob

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget lets the system drop what it caches of a range of the file. It is advice:
// what is not on disk yet stays, and an error changes nothing but memory.
func forget(f *os.File, off, n int64) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) { inner = unix.Fadvise(int(fd), off, n, unix.FADV_DONTNEED) })
	if err == nil {
		err = inner
	}
	return err
}

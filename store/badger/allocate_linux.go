package badger

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives the file size bytes of disk blocks. keep leaves its length as
// it is.
func allocate(f *os.File, size int64, keep bool) error {
	var mode uint32
	if keep {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	for {
		err := unix.Fallocate(int(f.Fd()), mode, 0, size)
		if err != unix.EINTR {
			return err
		}
	}
}

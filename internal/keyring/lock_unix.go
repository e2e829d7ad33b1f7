//go:build unix

package keyring

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cansync/cansync/store"
)

// lock keeps other processes out of the folder until the file is closed, also by
// the end of the process.
func lock(root *os.Root) (*os.File, error) {
	f, err := root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("keyring: %s: %w", root.Name(), store.ErrLocked)
		}
		return nil, fmt.Errorf("keyring: lock %s: %w", root.Name(), err)
	}
	return f, nil
}

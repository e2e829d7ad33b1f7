//go:build unix

package badger

import "golang.org/x/sys/unix"

// freeSpace returns the bytes that an unprivileged process may still write to
// the file system of dir.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		return uint64(st.Bavail) * uint64(st.Bsize), nil
	}
}

//go:build !linux

package badger

import "os"

// allocate gives the file size bytes of disk blocks by writing zeros. With keep,
// where the file is in use, it does nothing: there is no portable way.
func allocate(f *os.File, size int64, keep bool) error {
	if keep {
		return nil
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return f.Sync()
}

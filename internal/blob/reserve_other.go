//go:build !linux

package blob

import (
	"errors"
	"os"
)

// errQuota is matched by nothing: where the system has such an error, the writes
// return it as it is.
var errQuota = errors.New("blob: disk quota exceeded")

// reserve sets the length; a full disk shows in the writes.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }

//go:build !unix

package keyring

import "os"

// lock leaves it to the store to keep other processes out.
func lock(*os.Root) (*os.File, error) { return nil, nil }

//go:build unix

package main

import "syscall"

// restrict makes every file that the process creates its user's alone, whatever
// the umask it was started with.
func restrict() { syscall.Umask(0o077) }

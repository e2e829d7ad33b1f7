package service

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"os"

	"github.com/cansync/cansync/can"
)

const (
	// maxUploads bounds the ingests received at a time; others wait their turn.
	maxUploads = 128
	// chunkSize is the unit of copying; overlapAbove is the size from which on a
	// second goroutine hashes while the first writes.
	chunkSize    = 256 << 10
	overlapAbove = 2 << 20
)

// sumTimestamp is the hash of content under [HashTimestamp]; content is the state
// of SHA-256 after the content and is left as it is.
func sumTimestamp(content hash.Hash, timestamp int64) can.Digest {
	h, err := content.(hash.Cloner).Clone()
	if err != nil { // SHA-256 of the standard library can always be cloned
		panic(err)
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(timestamp))
	_, _ = h.Write(b[:])
	return can.Digest(h.Sum(nil))
}

// receive copies r to f and hashes it on the way.
func receive(f *os.File, r io.Reader) (size int64, sum hash.Hash, err error) {
	sum = sha256.New()
	buf := make([]byte, 32<<10)
	for size < overlapAbove {
		n, rerr := io.ReadFull(r, buf)
		if n > 0 {
			_, _ = sum.Write(buf[:n])
			if _, err := f.Write(buf[:n]); err != nil {
				return size, sum, err
			}
			size += int64(n)
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull returns them bare
			return size, sum, partEnd(r)
		}
		if rerr != nil {
			return size, sum, rerr
		}
	}
	n, err := overlap(f, sum, r)
	return size + n, sum, err
}

// partEnd tells the end of r from an input that was cut off: io.ReadFull reports
// io.ErrUnexpectedEOF for both, and only at its end does a reader repeat io.EOF.
func partEnd(r io.Reader) error {
	var b [1]byte
	if _, err := r.Read(b[:]); err != io.EOF { //nolint:errorlint // a bare io.EOF is the end
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// overlap copies r to f while another goroutine hashes the chunk before.
func overlap(f *os.File, sum hash.Hash, r io.Reader) (size int64, err error) {
	free, full := make(chan []byte, 3), make(chan []byte, 3)
	for range cap(free) {
		free <- make([]byte, chunkSize)
	}
	hashed := make(chan struct{})
	go func() {
		defer close(hashed)
		for b := range full {
			_, _ = sum.Write(b)
			free <- b[:chunkSize]
		}
	}()
	defer func() {
		close(full)
		<-hashed
	}()
	for {
		b := <-free
		n, rerr := io.ReadFull(r, b)
		if n > 0 {
			if _, err := f.Write(b[:n]); err != nil {
				return size, err
			}
			size += int64(n)
			full <- b[:n]
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull returns them bare
			return size, partEnd(r)
		}
		if rerr != nil {
			return size, rerr
		}
	}
}

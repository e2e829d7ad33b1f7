package cantest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/cansync/cansync/can"
)

// content opens the bytes of an asset.
type content func() io.ReadSeeker

func literal(b []byte) content { return func() io.ReadSeeker { return bytes.NewReader(b) } }

// Generated returns deterministic content of the given size that takes no
// memory: the n-th eight bytes are a mix (splitmix64, Steele, Lea and Flood 2014)
// of seed and n. Two seeds give unrelated contents.
func Generated(seed uint64, size int64) io.ReadSeeker { return &generator{seed: seed, size: size} }

type generator struct {
	seed uint64
	size int64
	off  int64
}

// Read implements io.Reader.
func (g *generator) Read(p []byte) (int, error) {
	if g.off >= g.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), g.size-g.off))
	p = p[:n]
	var word [8]byte
	for len(p) > 0 {
		block, at := uint64(g.off)/8, int(g.off%8)
		if at == 0 && len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, mix(g.seed, block))
			p, g.off = p[8:], g.off+8
			continue
		}
		binary.LittleEndian.PutUint64(word[:], mix(g.seed, block))
		k := copy(p, word[at:])
		p, g.off = p[k:], g.off+int64(k)
	}
	return n, nil
}

// Seek implements io.Seeker.
func (g *generator) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += g.off
	case io.SeekEnd:
		offset += g.size
	}
	if offset < 0 {
		return 0, errors.New("cantest: seek before the start")
	}
	g.off = offset
	return offset, nil
}

func mix(seed, n uint64) uint64 {
	z := seed*0xd1342543de82ef95 + (n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// DigestOf returns the digest of all that r yields.
func DigestOf(r io.Reader) (can.Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return can.Digest(h.Sum(nil)), n, err
}

package reconcile

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dchest/siphash"
)

var (
	_ encoding.BinaryMarshaler   = (*Set)(nil)
	_ encoding.BinaryUnmarshaler = (*Set)(nil)
)

// ErrImage says that bytes are not a Set as MarshalBinary made it under the same
// key: damaged, cut, or of another library. Build the Set anew from a scan.
var ErrImage = errors.New("reconcile: not an image of this library's symbols")

const (
	imageVersion = 1
	imageHead    = 5 // version, number of symbols
	imageSymbol  = fixedSize + 8
	imageTail    = 8 // SipHash of what comes before
)

// MarshalBinary returns an image of the Set, 48 bytes a symbol, to be kept where the
// ids are. It stands for the set as it is now: use it only if the ids
// have not changed since, or apply the changes to it.
func (s *Set) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, imageHead+len(s.symbols)*imageSymbol+imageTail)
	b = append(b, imageVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.symbols)))
	for i := range s.symbols {
		b = s.symbols[i].appendFixed(b)
		b = binary.LittleEndian.AppendUint64(b, uint64(s.symbols[i].count))
	}
	return binary.LittleEndian.AppendUint64(b, siphash.Hash(s.h.k0, s.h.k1, b)), nil
}

// UnmarshalBinary replaces the symbols, and the length of the prefix, by those of
// an image made under the Set's key, which stays as NewSet got it. Errors
// match ErrImage and leave the Set unchanged.
func (s *Set) UnmarshalBinary(b []byte) error {
	if len(b) < imageHead+imageTail || b[0] != imageVersion {
		return fmt.Errorf("%w: unknown version", ErrImage)
	}
	n := uint64(binary.LittleEndian.Uint32(b[1:]))
	if n < MinPrefix || n > MaxPrefix || uint64(len(b)) != imageHead+n*imageSymbol+imageTail {
		return fmt.Errorf("%w: wrong length", ErrImage)
	}
	body, tail := b[:len(b)-imageTail], b[len(b)-imageTail:]
	if siphash.Hash(s.h.k0, s.h.k1, body) != binary.LittleEndian.Uint64(tail) {
		return fmt.Errorf("%w: wrong checksum", ErrImage)
	}
	symbols := make([]symbol, n)
	for i := range symbols {
		at := body[imageHead+i*imageSymbol:]
		symbols[i].setFixed(at)
		symbols[i].count = int64(binary.LittleEndian.Uint64(at[fixedSize:]))
	}
	s.symbols, s.shared, s.snap = symbols, false, nil
	return nil
}

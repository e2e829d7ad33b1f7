package blob

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrBitmap says that bytes are not the encoding of a bitmap.
var ErrBitmap = errors.New("blob: invalid bitmap encoding")

const (
	bitmapRuns = 1 // uvarint lengths of absent, present, absent … runs
	bitmapBits = 2 // little-endian words, as few bytes as hold all bits

	sumSize = 16
)

// AppendTo appends the set's encoding to dst: a byte for the form, the form's
// payload, and the first 16 bytes of the SHA-256 of form, length and payload. The
// form is lengths of alternating runs, starting with an absent one, when that is
// no longer than plain bits, so a download in order costs a few bytes.
func (b *Bitmap) AppendTo(dst []byte) []byte {
	at := len(dst)
	plain := int((b.n + 7) / 8)
	dst, ok := b.appendRuns(append(dst, bitmapRuns), plain)
	if !ok {
		dst = append(dst[:at], bitmapBits)
		for i := range plain {
			dst = append(dst, byte(b.words[i/8]>>(i%8*8)))
		}
	}
	sum := bitmapSum(b.n, dst[at:])
	return append(dst, sum[:]...)
}

// appendRuns gives up once it has written more than limit bytes.
func (b *Bitmap) appendRuns(dst []byte, limit int) ([]byte, bool) {
	start := len(dst)
	for at, present := uint64(0), false; at < b.n; present = !present {
		end := uint64(0)
		if present {
			end = b.nextClear(at, b.n)
		} else {
			end = b.nextSet(at, b.n)
		}
		dst = binary.AppendUvarint(dst, end-at)
		if len(dst)-start > limit {
			return dst, false
		}
		at = end
	}
	return dst, true
}

// bitmapSum covers the length too, so an encoding fits one number of groups only.
func bitmapSum(n uint64, body []byte) (sum [sumSize]byte) {
	h := sha256.New()
	var head [8]byte
	binary.LittleEndian.PutUint64(head[:], n)
	h.Write(head[:])
	h.Write(body)
	copy(sum[:], h.Sum(nil))
	return sum
}

// DecodeBitmap reads the encoding of a set over n groups; n comes from the
// caller, never from the bytes. Anything but the exact output of
// [Bitmap.AppendTo] is [ErrBitmap].
func DecodeBitmap(p []byte, n uint64) (*Bitmap, error) {
	if len(p) < 1+sumSize || uint64(len(p)) > 1+sumSize+(n+7)/8 {
		return nil, fmt.Errorf("%w: wrong length", ErrBitmap)
	}
	body := p[:len(p)-sumSize]
	if bitmapSum(n, body) != [sumSize]byte(p[len(body):]) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrBitmap)
	}
	b := NewBitmap(n)
	payload := body[1:]
	var err error
	switch body[0] {
	case bitmapRuns:
		err = b.decodeRuns(payload)
	case bitmapBits:
		err = b.decodeBits(payload)
	default:
		err = fmt.Errorf("%w: unknown form %d", ErrBitmap, body[0])
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Bitmap) decodeRuns(p []byte) error {
	at := uint64(0)
	for present := false; at < b.n; present = !present {
		length, k := binary.Uvarint(p)
		if k <= 0 || k > 1 && p[k-1] == 0 {
			return fmt.Errorf("%w: bad run length", ErrBitmap)
		}
		if length > b.n-at || length == 0 && at > 0 || length == 0 && present {
			return fmt.Errorf("%w: run of %d groups", ErrBitmap, length)
		}
		if present {
			b.Set(Run{First: at, Count: length})
		}
		at, p = at+length, p[k:]
	}
	if len(p) > 0 {
		return fmt.Errorf("%w: trailing bytes", ErrBitmap)
	}
	return nil
}

func (b *Bitmap) decodeBits(p []byte) error {
	plain := int((b.n + 7) / 8)
	if len(p) != plain {
		return fmt.Errorf("%w: %d bytes of bits for %d groups", ErrBitmap, len(p), b.n)
	}
	if k := b.n % 8; k != 0 && p[plain-1]>>k != 0 {
		return fmt.Errorf("%w: bits beyond the end", ErrBitmap)
	}
	for at := uint64(0); at < b.n; at++ {
		if p[at/8]&(1<<(at%8)) != 0 {
			b.words[at/64] |= 1 << (at % 64)
			b.count++
		}
	}
	if _, shorter := b.appendRuns(nil, plain); shorter {
		return fmt.Errorf("%w: runs would be no longer", ErrBitmap)
	}
	return nil
}

package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// MaxFrame is the largest frame body in bytes, on any stream. It holds a batch of
// records or a group of small assets, and bounds what one message can make a
// node allocate.
const MaxFrame = 1 << 20

// FrameReader reads frames from a stream: a four-byte length that counts the type
// and the body, a one-byte type, the body. It is not safe for concurrent use.
type FrameReader struct {
	r   *bufio.Reader
	max int
	buf []byte
}

// NewFrameReader returns a reader of frames with bodies of at most limit bytes;
// limit 0 means [MaxFrame].
func NewFrameReader(r io.Reader, limit int) *FrameReader {
	if limit <= 0 || limit > MaxFrame {
		limit = MaxFrame
	}
	return &FrameReader{r: bufio.NewReaderSize(r, 64<<10), max: limit}
}

// Read returns the next frame. The body is valid until the next call. It returns
// io.EOF at a clean end between frames and io.ErrUnexpectedEOF within one. A
// length out of bounds is an [ErrMalformed], found before the body is read.
func (f *FrameReader) Read() (typ uint8, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(f.r, head[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(f.r, head[1:]); err != nil {
		return 0, nil, unexpected(err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || uint64(n)-1 > uint64(f.max) {
		return 0, nil, fmt.Errorf("%w: frame of %d bytes", ErrMalformed, n)
	}
	size := int(n) - 1
	if cap(f.buf) < size || cap(f.buf) > 1<<17 && size < 1<<14 {
		// A buffer that one large frame made is let go at the next small one.
		f.buf = make([]byte, 0, max(size, 512))
	}
	f.buf = f.buf[:size]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return 0, nil, unexpected(err)
	}
	return head[4], f.buf, nil
}

// Buffered returns how many bytes are waiting in memory.
func (f *FrameReader) Buffered() int { return f.r.Buffered() }

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendFrame appends a frame to dst.
func AppendFrame(dst []byte, typ uint8, body []byte) []byte {
	dst = AppendU32(dst, uint32(len(body)+1))
	return append(append(dst, typ), body...)
}

// WriteFrame writes a frame in one call of w.Write.
func WriteFrame(w io.Writer, typ uint8, body []byte) error {
	_, err := w.Write(AppendFrame(make([]byte, 0, len(body)+5), typ, body))
	return err
}

package transfer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// messageTime is how long one message, or a part of a large one, may take on its
// way: a peer that needs longer is taken for stuck.
const messageTime = 30 * time.Second

// framer reads frames off a stream. Bodies go straight to where they belong: its
// own buffer is small, so that large frames pass it by.
type framer struct {
	st    transport.Stream
	r     *bufio.Reader
	limit int

	// pay, if limited says so, is called before each part of a body is read and
	// may wait: the peer sees a slow reader, never one that is stuck.
	pay     func(n int) error
	limited func() bool
}

func newFramer(st transport.Stream, limit int) *framer {
	return &framer{st: st, r: bufio.NewReaderSize(st, 4<<10), limit: limit}
}

// await blocks until the next frame begins, for as long as the stream's read
// deadline allows. After an error the framer is still in good order if nothing had
// arrived.
func (f *framer) await() error {
	_, err := f.r.Peek(1)
	return err
}

// head reads the head of a frame and returns the length of its body, which the caller
// reads with body. The whole frame must arrive within messageTime from now, the time
// spent in pay apart.
func (f *framer) head() (typ uint8, n int, err error) {
	if err := f.st.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return 0, 0, err
	}
	var head [frameHead]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, 0, err
	}
	size := binary.BigEndian.Uint32(head[:4])
	if size < 1 || uint64(size)-1 > uint64(f.limit) {
		return 0, 0, fmt.Errorf("%w: frame of %d bytes", wire.ErrMalformed, size)
	}
	return head[4], int(size) - 1, nil
}

// next reads a frame. alloc gives the storage for a body of n bytes; it is called
// after the length was checked.
func (f *framer) next(alloc func(typ uint8, n int) []byte) (typ uint8, body []byte, err error) {
	typ, n, err := f.head()
	if err != nil {
		return 0, nil, err
	}
	body = alloc(typ, n)[:n]
	return typ, body, f.body(body)
}

// payPart is how much is paid for at once.
const payPart = 16 << 10

// body reads the body of a frame, or the next part of it, and takes nothing off the
// stream behind that.
func (f *framer) body(b []byte) error {
	if f.limited == nil || !f.limited() {
		return f.exactly(b)
	}
	for len(b) > 0 {
		k := min(len(b), payPart)
		if err := f.pay(k); err != nil {
			return err
		}
		_ = f.st.SetReadDeadline(time.Now().Add(messageTime))
		if err := f.exactly(b[:k]); err != nil {
			return err
		}
		b = b[k:]
	}
	return nil
}

// exactly fills b, with what has been read off the stream already first.
func (f *framer) exactly(b []byte) error {
	n, err := io.ReadFull(f.r, b[:min(len(b), f.r.Buffered())])
	if err == nil {
		_, err = io.ReadFull(f.st, b[n:])
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// writePart bounds what must be taken by the peer within messageTime.
const writePart = 64 << 10

// writeAll writes b to the stream; it fails when the peer takes less than writePart
// in messageTime.
func writeAll(st transport.Stream, b []byte) error {
	for len(b) > 0 {
		if err := st.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
			return err
		}
		n, err := st.Write(b[:min(len(b), writePart)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

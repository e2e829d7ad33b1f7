package transfer

import (
	"errors"
	"fmt"

	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

// A stream carries frames of package wire after the session's attach frame. The
// opener numbers its requests as it likes and may have many under way; answers
// come in any order.
//
//	opener:   wants   (seq u32, record id)…            whole small contents
//	          run     seq u32, record id, root, size u64, first u64, count u32
//	          cancel  seq u32                           of a run
//	answerer: smalls  (seq u32, status u8, and if ok: length u32, content)…
//	          proof   seq u32, proof of the run
//	          data    seq u32, whole groups, in order, behind their proof
//	          end     seq u32, status u8                the run ends early or fails
//	          working seq u32                           the run takes a while
//
// All integers are big-endian.
const (
	frameWants  = 1
	frameRun    = 2
	frameCancel = 3

	frameSmalls  = 16
	frameProof   = 17
	frameData    = 18
	frameEnd     = 19
	frameWorking = 20
)

const (
	maxWants     = 256 // in one frame
	wantSize     = 4 + 32
	runSize      = 4 + 32 + 32 + 8 + 8 + 4
	maxRunGroups = 256 // 4 MiB
	maxPiece     = 256 << 10
	maxSmalls    = 192 << 10 // body of a frame of small contents
	maxRequest   = maxWants * wantSize
	maxAnswer    = 4 + maxPiece
	frameHead    = 4 + 1
)

// status says how a request ended.
type status uint8

const (
	statusOK status = iota
	// statusNotFound is the one answer for a record that is unknown, belongs to
	// another library or is not live, and for content that is not here.
	statusNotFound
	statusUnavailable
	statusConflict
	statusCancelled
	statusCount
)

var errStatus = errors.New("transfer: request cancelled")

// err returns the error that a status stands for.
func (s status) err() error {
	switch s {
	case statusOK:
		return nil
	case statusNotFound:
		return ErrNotServed
	case statusUnavailable:
		return ErrUnavailable
	case statusConflict:
		return ErrConflict
	}
	return errStatus
}

// wantReq asks for a small content.
type wantReq struct {
	seq    uint32
	record record.ID
}

// runReq asks for a run of groups of a content of which the asker knows root and
// size.
type runReq struct {
	seq    uint32
	record record.ID
	root   [32]byte
	size   uint64
	run    blob.Run
}

// answer is what became of a small content.
type answer struct {
	seq    uint32
	status status
	data   []byte
}

func appendWant(dst []byte, q wantReq) []byte {
	return append(wire.AppendU32(dst, q.seq), q.record[:]...)
}

func decodeWants(b []byte) ([]wantReq, error) {
	r := wire.NewReader(b)
	if len(b) == 0 || len(b)%wantSize != 0 || len(b) > maxRequest {
		r.Fail("%d bytes of wants", len(b))
		return nil, r.Err()
	}
	out := make([]wantReq, 0, len(b)/wantSize)
	for r.Len() > 0 {
		out = append(out, wantReq{seq: r.U32(), record: r.B32()})
	}
	return out, r.End()
}

func (q runReq) frame() []byte {
	b := appendHead(make([]byte, 0, frameHead+runSize), frameRun, runSize)
	b = wire.AppendU32(b, q.seq)
	b = append(b, q.record[:]...)
	b = append(b, q.root[:]...)
	b = wire.AppendU64(b, q.size)
	b = wire.AppendU64(b, q.run.First)
	return wire.AppendU32(b, uint32(q.run.Count))
}

func decodeRun(b []byte) (runReq, error) {
	r := wire.NewReader(b)
	q := runReq{seq: r.U32(), record: r.B32(), root: r.B32(), size: r.U64()}
	q.run = blob.Run{First: r.U64(), Count: uint64(r.U32())}
	if err := r.End(); err != nil {
		return runReq{}, err
	}
	if q.run.Count > maxRunGroups {
		return runReq{}, fmt.Errorf("%w: a run of %d groups", wire.ErrMalformed, q.run.Count)
	}
	if err := q.run.Check(q.size); err != nil {
		return runReq{}, fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	return q, nil
}

func seqFrame(typ uint8, seq uint32) []byte {
	return wire.AppendU32(appendHead(make([]byte, 0, frameHead+4), typ, 4), seq)
}

func decodeSeq(b []byte) (uint32, error) {
	r := wire.NewReader(b)
	seq := r.U32()
	return seq, r.End()
}

func endFrame(seq uint32, s status) []byte {
	b := appendHead(make([]byte, 0, frameHead+5), frameEnd, 5)
	return append(wire.AppendU32(b, seq), byte(s))
}

func decodeEnd(b []byte) (uint32, status, error) {
	r := wire.NewReader(b)
	seq, s := r.U32(), status(r.U8())
	if r.Err() == nil && (s == statusOK || s >= statusCount) {
		r.Fail("a run ended with status %d", s)
	}
	return seq, s, r.End()
}

// answerSize is the length of an answer in a frame.
func answerSize(a answer) int {
	if a.status != statusOK {
		return 5
	}
	return 9 + len(a.data)
}

func appendAnswer(dst []byte, a answer) []byte {
	dst = append(wire.AppendU32(dst, a.seq), byte(a.status))
	if a.status == statusOK {
		dst = wire.AppendBytes(dst, a.data)
	}
	return dst
}

// decodeSmalls reads a frame of small contents, which alias b.
func decodeSmalls(b []byte) ([]answer, error) {
	r := wire.NewReader(b)
	if len(b) == 0 || len(b) > maxSmalls {
		r.Fail("%d bytes of small contents", len(b))
		return nil, r.Err()
	}
	var out []answer
	for r.Len() > 0 {
		a := answer{seq: r.U32(), status: status(r.U8())}
		if a.status >= statusCount {
			r.Fail("status %d", a.status)
		}
		if a.status == statusOK {
			a.data = r.Bytes(SmallLimit)
		}
		out = append(out, a)
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return out, nil
}

// appendHead appends the head of a frame with a body of n bytes.
func appendHead(dst []byte, typ uint8, n int) []byte {
	return append(wire.AppendU32(dst, uint32(n+1)), typ)
}

package session

import (
	"encoding/binary"
	"fmt"

	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// Protocol ids. A change that old nodes can't follow gets a new number.
const (
	protoHello = "/cansync/hello/1"
	protoSync  = "/cansync/sync/1"
	// ProtoBlob is the protocol on which contents are requested.
	ProtoBlob = "/cansync/blob/1"
)

// Frame types of the sync stream. Unknown types are skipped, so that later
// versions can add to them.
const (
	frameReconcile = 1 // set, round, digest of the view, payload of package reconcile
	frameRecords   = 2 // set, records
	frameCaught    = 3 // round: the sender pushed all its surplus of that round
	frameResync    = 4 // please start a reconciliation
	framePing      = 5
	framePong      = 6
	frameView      = 7  // the sender's view of the library, before anything else
	frameAsk       = 8  // seq, digests: which of these do you hold?
	frameHave      = 9  // seq, a bit for each digest
	frameCrowded   = 10 // the sender has too many links and wants this one to end
	frameLater     = 11 // seconds: the sender can't take yet what it would be told
	frameOffer     = 12 // seq, ids of records: which of these do you keep?
	frameKept      = 13 // seq, a bit for each id
)

// Frame types of the hello stream.
const (
	frameHello  = 1
	frameTags   = 2
	frameProof  = 3 // handle, certificate bundle
	frameJoin   = 4 // handle, join request
	frameReply  = 5 // handle, join reply
	frameReady  = 6 // everything about the handles was said; the handles accepted
	frameAlive  = 7
	frameAddrs  = 8 // peers and the addresses under which they may be reached
	frameAttach = 9 // session and handle, the first frame of every other stream
)

const maxAddrPeers = 64

func setFlag(control bool) byte {
	if control {
		return 1
	}
	return 0
}

// viewDigest stands for the view under which two peers reconcile. Both compute it
// from the views that they told each other; a round under another is not answered.
type viewDigest [8]byte

func encodeReconcile(control bool, round uint32, view viewDigest, payload []byte) []byte {
	body := make([]byte, 0, 13+len(payload))
	body = wire.AppendU32(append(body, setFlag(control)), round)
	return wire.AppendFrame(nil, frameReconcile, append(append(body, view[:]...), payload...))
}

func decodeReconcile(b []byte) (control bool, round uint32, view viewDigest, payload []byte, err error) {
	rd := wire.NewReader(b)
	control, round = rd.Bool(), rd.U32()
	copy(view[:], rd.Take(len(view)))
	payload = rd.Rest()
	return control, round, view, payload, rd.End()
}

// encodeRecords takes as many records as fit a frame and returns what is left.
func encodeRecords(control bool, recs []record.Record) (frame []byte, rest []record.Record) {
	body := make([]byte, 0, min(batchBytes+record.MaxSize, 1<<10*max(len(recs), 1)))
	body = append(body, setFlag(control))
	n := 0
	for n < len(recs) && len(body) < batchBytes {
		body = recs[n].Append(body)
		n++
	}
	return wire.AppendFrame(make([]byte, 0, len(body)+5), frameRecords, body), recs[n:]
}

func decodeRecords(b []byte) (control bool, recs []record.Record, err error) {
	rd := wire.NewReader(b)
	control = rd.Bool()
	for rd.Err() == nil && rd.Len() > 0 {
		r := record.Read(rd)
		if rd.Err() == nil && r.Kind.Control() != control {
			return false, nil, fmt.Errorf("%w: %v in the wrong set", wire.ErrMalformed, r.Kind)
		}
		recs = append(recs, r)
	}
	if err := rd.End(); err != nil {
		return false, nil, err
	}
	return control, recs, nil
}

func encodeNumber(typ uint8, n uint32) []byte {
	return wire.AppendFrame(nil, typ, wire.AppendU32(nil, n))
}

func decodeNumber(b []byte) (uint32, error) {
	rd := wire.NewReader(b)
	n := rd.U32()
	return n, rd.End()
}

// encodePeers leaves out addresses that are too long, and the peers that no longer fit
// a frame of the hello stream: others may have told so many long addresses.
func encodePeers(peers []transport.PeerInfo) []byte {
	b := wire.AppendU16(nil, 0)
	n := uint16(0)
	for _, p := range peers[:min(len(peers), maxAddrPeers)] {
		one, count := p.ID[:], uint16(0)
		var addrs []byte
		for _, a := range p.Addrs[:min(len(p.Addrs), maxAddrs)] {
			if len(a) <= maxAddrLen {
				addrs = wire.AppendString(addrs, a)
				count++
			}
		}
		one = append(wire.AppendU16(one[:len(one):len(one)], count), addrs...)
		if len(b)+len(one) > helloFrame {
			break
		}
		b = append(b, one...)
		n++
	}
	binary.BigEndian.PutUint16(b, n)
	return wire.AppendFrame(nil, frameAddrs, b)
}

func decodePeers(b []byte) ([]transport.PeerInfo, error) {
	rd := wire.NewReader(b)
	var peers []transport.PeerInfo
	for range rd.Count(maxAddrPeers) {
		p := transport.PeerInfo{ID: rd.B32()}
		for range rd.Count(maxAddrs) {
			p.Addrs = append(p.Addrs, rd.String(maxAddrLen))
		}
		peers = append(peers, p)
	}
	return peers, rd.End()
}

// attach names the session and library of a stream, as its first frame.
type attach struct {
	session [16]byte
	handle  uint16
}

func (a attach) encode() []byte {
	return wire.AppendFrame(nil, frameAttach, wire.AppendU16(a.session[:], a.handle))
}

func decodeAttach(b []byte) (a attach, err error) {
	rd := wire.NewReader(b)
	copy(a.session[:], rd.Take(16))
	a.handle = rd.U16()
	return a, rd.End()
}

package capability

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// The hello lets two peers find out which secrets they share. Between A, who
// opens the stream, and B:
//
//	A→B  version:u8(=1) nA[32]
//	B→A  version:u8(=1) nB[32]
//	A→B  tags 'I', padded with random ones to 16, 64 or 256, in random order
//	B→A  tags 'R' for those of A's that B knows, padded to as many, likewise
//
//	bind      = SHA-256("cansync/bind/v1" ‖ lp(A) ‖ lp(B) ‖ nA ‖ nB ‖ code ‖ lp(exporter))
//	tag(r, S) = HMAC-SHA256(HKDF-SHA256(S, "cansync/auth/v1"), "cansync/tag/v1" ‖ r ‖ bind)[:16]
//
// where lp is the value behind its four-byte length, A and B are the peer ids the
// transport authenticated, and code is 1 with an exporter and else 0. The role
// keeps a tag from being mirrored, the nonces from being replayed, the ids from
// being relayed, as who sits between two connections has another id on each.
// Without the secret a tag is random, and so B's answer is the same in kind and
// size whether or not anything matched.
//
// The handle of a match is the place of its tag in B's answer.

// Errors of the hello, to be matched with errors.Is.
var (
	// ErrHello says that a message is not one of the protocol: close the stream.
	ErrHello = errors.New("capability: malformed hello")
	// ErrHelloVersion says that the peer speaks another version of the hello.
	ErrHelloVersion = errors.New("capability: hello of another version")
	// ErrHelloOrder says that a step was called twice or out of order.
	ErrHelloOrder = errors.New("capability: hello step out of order")
	// ErrTooManySecrets says that an opener was given more than [MaxTags].
	ErrTooManySecrets = errors.New("capability: too many secrets for one hello")
)

const (
	helloVersion = 1
	nonceSize    = 1 + 32
	tagSize      = 16
)

type tag [tagSize]byte

// Channel is the connection a hello runs on.
type Channel struct {
	// Self and Peer are the two ends, as the transport authenticated them.
	Self, Peer transport.PeerID
	// Exporter is keying material that both ends took from the connection's
	// handshake (RFC 8446, 7.5), where the transport gives it. Either both sides
	// have it or the hello finds no match.
	Exporter []byte
}

func (c Channel) check() error {
	switch {
	case c.Self.IsZero() || c.Peer.IsZero():
		return fmt.Errorf("%w: unknown peer", ErrHello)
	case c.Self == c.Peer:
		return fmt.Errorf("%w: hello with oneself", ErrHello)
	case len(c.Exporter) > math.MaxUint16:
		return fmt.Errorf("%w: exporter of %d bytes", ErrHello, len(c.Exporter))
	}
	return nil
}

// binding ties the tags to one connection between a, who opened, and b.
func binding(a, b transport.PeerID, nA, nB [32]byte, exporter []byte) [32]byte {
	msg := append(make([]byte, 0, 256), "cansync/bind/v1"...)
	msg = wire.AppendBytes(msg, a[:])
	msg = wire.AppendBytes(msg, b[:])
	msg = append(append(msg, nA[:]...), nB[:]...)
	msg = wire.AppendBool(msg, len(exporter) > 0)
	return sha256.Sum256(wire.AppendBytes(msg, exporter))
}

const (
	roleOpener    = 'I'
	roleResponder = 'R'
)

// bothTags returns the tags of either role, so that a side does the same work
// whether it shows one or not.
func bothTags(s Secret, bind [32]byte) (opener, responder tag) {
	mac := hmac.New(sha256.New, s.h.get().auth[:])
	msg := append(make([]byte, 0, 64), "cansync/tag/v1"...)
	role := len(msg)
	msg = append(append(msg, roleOpener), bind[:]...)
	var sum [sha256.Size]byte
	mac.Write(msg)
	copy(opener[:], mac.Sum(sum[:0]))
	mac.Reset()
	msg[role] = roleResponder
	mac.Write(msg)
	copy(responder[:], mac.Sum(sum[:0]))
	return opener, responder
}

// Match is a secret that both sides know.
type Match struct {
	// Secret is its index in the slice given to [NewOpener] or [NewResponder]; of
	// equal secrets, the first.
	Secret int
	// Handle names the match on this connection; both sides have the same. A
	// library known by two secrets can match twice.
	Handle uint16
}

// own is one secret of this side with its tags.
type own struct {
	index             int
	opener, responder tag
}

func distinct(secrets []Secret) ([]own, error) {
	out := make([]own, 0, len(secrets))
	seen := make(map[[32]byte]bool, len(secrets))
	for i, s := range secrets {
		if s.IsZero() {
			return nil, fmt.Errorf("%w: secret %d is zero", ErrKey, i)
		}
		if raw := s.h.get().auth; !seen[raw] {
			seen[raw] = true
			out = append(out, own{index: i})
		}
	}
	return out, nil
}

func makeTags(owns []own, secrets []Secret, bind [32]byte) {
	for i := range owns {
		owns[i].opener, owns[i].responder = bothTags(secrets[owns[i].index], bind)
	}
}

// bucket returns how many tags are sent for n.
func bucket(n int) int {
	switch {
	case n <= 16:
		return 16
	case n <= 64:
		return 64
	}
	return MaxTags
}

// shuffle returns a random order of n ≤ 256 places, by rejection from single
// bytes, so that every order is equally likely (Fisher, Yates).
func shuffle(rand io.Reader, n int) ([]int, error) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var pool [512]byte
	at := len(pool)
	for i := n - 1; i > 0; {
		if at == len(pool) {
			if _, err := io.ReadFull(rand, pool[:]); err != nil {
				return nil, fmt.Errorf("capability: read randomness: %w", err)
			}
			at = 0
		}
		v := int(pool[at])
		at++
		if m := i + 1; v < 256/m*m {
			j := v % m
			order[i], order[j] = order[j], order[i]
			i--
		}
	}
	return order, nil
}

// scatter returns size tags, at first all random, and the places in random order.
func scatter(rand io.Reader, size int) (msg []byte, places []int, err error) {
	if places, err = shuffle(rand, size); err != nil {
		return nil, nil, err
	}
	msg = make([]byte, size*tagSize)
	if _, err := io.ReadFull(rand, msg); err != nil {
		return nil, nil, fmt.Errorf("capability: read randomness: %w", err)
	}
	return msg, places, nil
}

func nonceMessage(rand io.Reader) (n [32]byte, msg []byte, err error) {
	if n, err = random32(rand); err != nil {
		return n, nil, err
	}
	return n, append([]byte{helloVersion}, n[:]...), nil
}

func readNonce(msg []byte) (n [32]byte, err error) {
	if len(msg) > 0 && msg[0] != helloVersion {
		return n, fmt.Errorf("%w: %d, this node speaks %d", ErrHelloVersion, msg[0], helloVersion)
	}
	if len(msg) != nonceSize {
		return n, fmt.Errorf("%w: nonce of %d bytes", ErrHello, len(msg))
	}
	return [32]byte(msg[1:]), nil
}

// Opener is the side that opened the stream. Its steps are called once each, in
// the order [NewOpener], Tags, Finish, by one goroutine.
type Opener struct {
	ch      Channel
	rand    io.Reader
	secrets []Secret
	owns    []own
	step    uint8
	size    int
	nonce   [32]byte
	bind    [32]byte
}

// NewOpener begins a hello about at most [MaxTags] secrets and returns the first
// message. Bucketed to 16, 64 or 256, their number is seen by the peer.
func NewOpener(ch Channel, secrets []Secret, rand io.Reader) (*Opener, []byte, error) {
	if err := ch.check(); err != nil {
		return nil, nil, err
	}
	owns, err := distinct(secrets)
	if err != nil {
		return nil, nil, err
	}
	if len(owns) > MaxTags {
		return nil, nil, fmt.Errorf("%w: %d", ErrTooManySecrets, len(owns))
	}
	o := &Opener{ch: ch, rand: rand, secrets: secrets, owns: owns, step: 1, size: bucket(len(owns))}
	n, msg, err := nonceMessage(rand)
	o.nonce = n
	return o, msg, err
}

// Tags takes the responder's nonce message and returns the opener's tags.
func (o *Opener) Tags(msg []byte) ([]byte, error) {
	if o.step != 1 {
		return nil, ErrHelloOrder
	}
	o.step = 0
	n, err := readNonce(msg)
	if err != nil {
		return nil, err
	}
	if n == o.nonce {
		return nil, fmt.Errorf("%w: nonce mirrored", ErrHello)
	}
	o.bind = binding(o.ch.Self, o.ch.Peer, o.nonce, n, o.ch.Exporter)
	makeTags(o.owns, o.secrets, o.bind)
	out, places, err := scatter(o.rand, o.size)
	if err != nil {
		return nil, err
	}
	for i := range o.owns {
		copy(out[places[i]*tagSize:], o.owns[i].opener[:])
	}
	o.step = 2
	return out, nil
}

// Finish takes the responder's tags and returns what both know, by handle.
func (o *Opener) Finish(msg []byte) ([]Match, error) {
	if o.step != 2 {
		return nil, ErrHelloOrder
	}
	o.step = 3
	if len(msg) != o.size*tagSize {
		return nil, fmt.Errorf("%w: answer of %d bytes to %d tags", ErrHello, len(msg), o.size)
	}
	mine := make(map[tag]int, len(o.owns))
	for _, w := range o.owns {
		mine[w.responder] = w.index
	}
	var out []Match
	for place := range o.size {
		t := tag(msg[place*tagSize:])
		if i, ok := mine[t]; ok {
			delete(mine, t)
			out = append(out, Match{Secret: i, Handle: uint16(place)})
		}
	}
	return out, nil
}

// Binding is unique to the connection and the hello on it; signatures made for
// this connection cover it. It is zero before Tags.
func (o *Opener) Binding() [32]byte { return o.bind }

// Responder is the side that accepted the stream. Its steps are called once each,
// in the order [NewResponder], Nonce, Answer, by one goroutine.
type Responder struct {
	ch      Channel
	rand    io.Reader
	secrets []Secret
	owns    []own
	step    uint8
	bind    [32]byte
}

// NewResponder begins to answer a hello. Its secrets are those an opener would
// send and those of open invites. Work and memory grow with their number, which
// the caller bounds, and with nothing the peer sends: two HMACs and some 100
// bytes each.
func NewResponder(ch Channel, secrets []Secret, rand io.Reader) (*Responder, error) {
	if err := ch.check(); err != nil {
		return nil, err
	}
	owns, err := distinct(secrets)
	if err != nil {
		return nil, err
	}
	return &Responder{ch: ch, rand: rand, secrets: secrets, owns: owns, step: 1}, nil
}

// Nonce takes the opener's nonce message and returns the responder's.
func (r *Responder) Nonce(msg []byte) ([]byte, error) {
	if r.step != 1 {
		return nil, ErrHelloOrder
	}
	r.step = 0
	nA, err := readNonce(msg)
	if err != nil {
		return nil, err
	}
	nB, out, err := nonceMessage(r.rand)
	if err != nil {
		return nil, err
	}
	r.bind = binding(r.ch.Peer, r.ch.Self, nA, nB, r.ch.Exporter)
	r.step = 2
	return out, nil
}

// Answer takes the opener's tags and returns the responder's, always as many, and
// what both know, by handle. The message is sent even when nothing matched.
func (r *Responder) Answer(msg []byte) ([]byte, []Match, error) {
	if r.step != 2 {
		return nil, nil, ErrHelloOrder
	}
	r.step = 3
	size := len(msg) / tagSize
	if len(msg)%tagSize != 0 || size < 16 || size > MaxTags || bucket(size) != size {
		return nil, nil, fmt.Errorf("%w: tags of %d bytes", ErrHello, len(msg))
	}
	makeTags(r.owns, r.secrets, r.bind)
	mine := make(map[tag]int, len(r.owns))
	for i := range r.owns {
		mine[r.owns[i].opener] = i
	}
	out, places, err := scatter(r.rand, size)
	if err != nil {
		return nil, nil, err
	}
	// Every own secret answers once, so at most size of them.
	byPlace := make([]int, size)
	n := 0
	for at := range size {
		t := tag(msg[at*tagSize:])
		if i, ok := mine[t]; ok {
			delete(mine, t)
			place := places[n]
			n++
			copy(out[place*tagSize:], r.owns[i].responder[:])
			byPlace[place] = i + 1
		}
	}
	var matches []Match
	for place, i := range byPlace {
		if i > 0 {
			matches = append(matches, Match{Secret: r.owns[i-1].index, Handle: uint16(place)})
		}
	}
	return out, matches, nil
}

// Binding is as [Opener.Binding]; it is zero before Nonce.
func (r *Responder) Binding() [32]byte { return r.bind }

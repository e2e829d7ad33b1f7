// Package transporttest checks that a transport keeps the promises of package
// transport, and measures it.
package transporttest

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/transport"
)

// Maker makes three transports with identities of their own, on one network and
// not connected to each other, that can reach each other when told the addresses.
// The suite closes them; a second Close by the maker does no harm.
type Maker func(t testing.TB) (a, b, c transport.Transport)

// Option changes what the suite does.
type Option func(*suite)

// LeakOptions are handed to goleak, for goroutines that the transport's libraries
// are known to leave behind.
func LeakOptions(o ...goleak.Option) Option {
	return func(s *suite) { s.leaks = append(s.leaks, o...) }
}

// NoLeakCheck leaves out looking for goroutines left behind, for use inside a
// synctest bubble, which looks itself.
func NoLeakCheck() Option { return func(s *suite) { s.noLeaks = true } }

// Sequential sets how many streams are opened one after the other; 500 by
// default.
func Sequential(n int) Option { return func(s *suite) { s.sequential = n } }

// Parallel sets how many streams are open at a time; 60 by default.
func Parallel(n int) Option { return func(s *suite) { s.parallel = n } }

// Patience is how long the suite waits for something that must happen, before it
// fails; 20 seconds by default.
func Patience(d time.Duration) Option { return func(s *suite) { s.patience = d } }

type suite struct {
	make                 Maker
	leaks                []goleak.Option
	noLeaks              bool
	sequential, parallel int
	patience             time.Duration
}

const proto = "/cansync/test/1"

// Case is one test of the suite, for those who want to run it on their own, for
// instance each in a synctest bubble.
type Case struct {
	Name string
	// RealTime says that the case waits for a deadline to pass. In a synctest
	// bubble no time is lost.
	RealTime bool
	run      func(e *env)
}

// Cases returns the cases of the suite.
func Cases() []Case {
	return []Case{
		{"Identity", false, testIdentity},
		{"Echo", false, testEcho},
		{"UnknownProtocol", false, testUnknownProtocol},
		{"HandleNil", false, testHandleNil},
		{"HalfClose", false, testHalfClose},
		{"CloseDelivers", false, testCloseDelivers},
		{"Reset", false, testReset},
		{"ResetByHandler", false, testResetByHandler},
		{"ReadDeadline", true, testReadDeadline},
		{"WriteDeadline", true, testWriteDeadline},
		{"CloseAgainstSilence", false, testCloseAgainstSilence},
		{"DialCancelled", false, testDialCancelled},
		{"Unreachable", true, testUnreachable},
		{"WrongIdentity", true, testWrongIdentity},
		{"RememberedAddress", false, testRemembered},
		{"SimultaneousOpen", false, testSimultaneous},
		{"Sequential", false, testSequential},
		{"Parallel", false, testParallel},
		{"BigTransfer", false, testBigTransfer},
		{"BothWays", false, testBothWays},
		{"Peers", false, testPeers},
		{"Events", false, testEvents},
		{"EventsStop", false, testEventsStop},
		{"Disconnect", false, testDisconnect},
		{"CloseJoinsHandlers", false, testCloseJoins},
		{"CloseTwice", false, testCloseTwice},
		{"Closed", false, testClosed},
		{"PeerCloses", false, testPeerCloses},
		{"Discovery", true, testDiscovery},
	}
}

// Run runs the suite.
func Run(t *testing.T, mk Maker, opts ...Option) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) { c.Run(t, mk, opts...) })
	}
}

// Run runs the case.
func (c Case) Run(t *testing.T, mk Maker, opts ...Option) {
	s := &suite{make: mk, sequential: 500, parallel: 60, patience: 20 * time.Second}
	for _, o := range opts {
		o(s)
	}
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	a, b, d := s.make(t)
	e := &env{T: t, s: s, ctx: ctx, a: a, b: b, c: d}
	func() {
		defer e.close()
		c.run(e)
	}()
	if !s.noLeaks && !t.Failed() {
		goleak.VerifyNone(t, append(slices.Clone(s.leaks), before)...)
	}
}

// env is what a case works with. ctx ends when patience does.
type env struct {
	*testing.T
	s       *suite
	ctx     context.Context
	a, b, c transport.Transport
}

func (e *env) close() {
	for _, t := range []transport.Transport{e.a, e.b, e.c} {
		if err := t.Close(); err != nil {
			e.Errorf("Close: %v", err)
		}
	}
}

// info says where a transport is.
func info(t transport.Transport) transport.PeerInfo {
	return transport.PeerInfo{ID: t.ID(), Addrs: t.Addrs()}
}

// open opens a stream that must come about. All it does must end with patience.
func (e *env) open(from, to transport.Transport) transport.Stream {
	e.Helper()
	s, err := from.Open(e.ctx, info(to), proto, transport.OpenOptions{})
	require.NoError(e, err)
	e.bound(s)
	return s
}

func (e *env) bound(s transport.Stream) {
	if end, ok := e.ctx.Deadline(); ok {
		_ = s.SetReadDeadline(end)
		_ = s.SetWriteDeadline(end)
	}
}

// accept serves the protocol and hands the streams to the test, which owns them.
func (e *env) accept(t transport.Transport) <-chan transport.Stream {
	ch := make(chan transport.Stream, 16)
	t.Handle(proto, func(s transport.Stream) {
		e.bound(s)
		select {
		case ch <- s:
		case <-e.ctx.Done():
			_ = s.Reset()
		}
	})
	return ch
}

// pair is two ends of a stream. As some transports tell the peer of a stream
// only with its first bytes, one byte goes ahead.
func (e *env) pair(from, to transport.Transport) (near, far transport.Stream) {
	e.Helper()
	ch := e.accept(to)
	near = e.open(from, to)
	_, err := near.Write([]byte{0})
	require.NoError(e, err)
	far = wait(e, ch)
	_, err = io.ReadFull(far, make([]byte, 1))
	require.NoError(e, err)
	return near, far
}

// wait receives from a channel.
func wait[T any](e *env, ch <-chan T) T {
	e.Helper()
	select {
	case v, ok := <-ch:
		require.True(e, ok, "channel closed")
		return v
	case <-e.ctx.Done():
		require.Fail(e, "nothing happened")
		panic("unreachable")
	}
}

// echo serves the protocol by sending back what comes.
func echo(t transport.Transport) {
	t.Handle(proto, func(s transport.Stream) {
		if _, err := io.Copy(s, s); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

// ask sends b over a new stream to an echo, and checks the answer.
func (e *env) ask(from, to transport.Transport, b []byte) error {
	s, err := from.Open(e.ctx, info(to), proto, transport.OpenOptions{})
	if err != nil {
		return err
	}
	e.bound(s)
	defer s.Close()
	errs := make(chan error, 1)
	go func() {
		_, err := s.Write(b)
		if err == nil {
			err = s.CloseWrite()
		}
		errs <- err
	}()
	h := sha256.New()
	n, err := io.Copy(h, s)
	if err != nil {
		_ = s.Reset()
	}
	if werr := <-errs; err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	if n != int64(len(b)) || sha256.Sum256(b) != [32]byte(h.Sum(nil)) {
		return errAltered
	}
	return nil
}

// eventually waits until ok, looking whenever an event comes by or a moment has
// passed.
func (e *env) eventually(ok func() bool, what string) {
	e.Helper()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for !ok() {
		select {
		case <-t.C:
		case <-e.ctx.Done():
			require.Fail(e, "never came true: "+what)
		}
	}
}

package reconcile

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite testdata/vectors.txt; only with a new protocol version")

// The bytes that peers of all machines and releases must agree on.
func TestVectors(t *testing.T) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	name := func(i int) ID { return sha256.Sum256(fmt.Appendf(nil, "record %d", i)) }
	h := newHasher(testKey)

	line("# Frozen bytes of protocol version %d. Key %x; id i is the SHA-256 of \"record i\".", version, testKey)
	line("\n# mapping: id, checksum, indices of its symbols below 65,536")
	for i := range 6 {
		id := name(i)
		check, m := h.hash(&id)
		fmt.Fprintf(&b, "%x %016x", id, check)
		for ; m.index < MaxPrefix; m.next() {
			fmt.Fprintf(&b, " %d", m.index)
		}
		line("")
	}
	line("\n# a digest over 65,536 states of the mapping: the sum of all indices below 2^31, modulo 2^64")
	var sum uint64
	for i := range uint64(65536) {
		for m := (mapping{state: i * 0x9e3779b97f4a7c15}); m.index < indexEnd; m.next() {
			sum = sum*31 + m.index
		}
	}
	line("%016x", sum)

	a, c := NewSet(testKey, 64), NewSet(testKey, 64)
	for i := range 100 {
		a.Insert(name(i))
		if i > 0 {
			c.Insert(name(i))
		}
	}
	c.Insert(name(100))
	line("\n# symbols of ids 0 to 99: sum, checksum, count")
	for i := range 8 {
		s := &a.symbols[i]
		line("%x %016x %d", s.id(), s.check, s.count)
	}
	line("\n# their digest, and the SHA-256 of their image")
	image, err := a.MarshalBinary()
	require.NoError(t, err)
	line("%x\n%x", a.Snapshot().Digest(), sha256.Sum256(image))

	line("\n# a session: ids 0 to 99 (initiator) and 1 to 100")
	sa, first, err := NewInitiator(a.Snapshot(), Config{})
	require.NoError(t, err)
	sb, err := NewResponder(c.Snapshot(), Config{})
	require.NoError(t, err)
	line("-> %x", first)
	sb1, err := sb.Handle(first)
	require.NoError(t, err)
	require.Len(t, sb1.Send, 1)
	line("<- %x", sb1.Send[0])
	sa1, err := sa.Handle(sb1.Send[0])
	require.NoError(t, err)
	require.Len(t, sa1.Send, 1)
	line("-> %x", sa1.Send[0])
	require.Equal(t, []ID{name(100)}, sa1.Missing)
	require.Equal(t, []ID{name(0)}, sa1.Surplus)
	sb2, err := sb.Handle(sa1.Send[0])
	require.NoError(t, err)
	require.Equal(t, []ID{name(100)}, sb2.Surplus)
	require.True(t, sa1.Done && sb2.Done)

	line("\n# every other message")
	for _, m := range sampleMessages()[3:] {
		line("%x", m.encode())
	}
	line("\n# session key of nonces 01.. and 02..")
	line("%x", sessionKey(testKey, [16]byte{1}, [16]byte{2}))

	const file = "testdata/vectors.txt"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/edwards25519"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/wire"
)

var epoch = time.UnixMilli(1_700_000_000_000)

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, 31), n))
}

func sum(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func sampleBody(i int) AssetBody {
	return AssetBody{
		Size: uint64(1000 + i), Root: sum(fmt.Sprint("root", i)), Timestamp: 1_700_000_000_123,
		MIMEType: "image/png", Application: "camera", User: "ann", Description: "a picture",
		Tags: []string{"b", "a", ""}, Filename: fmt.Sprintf("img_%04d.png", i), Path: "/home/ann/pictures",
	}
}

func drafts(t require.TestingT, n int) []Draft {
	out := make([]Draft, n)
	for i := range out {
		d, err := Asset(Announce, ClockAt(epoch)+Clock(i), sum("library"), sum(fmt.Sprint("asset", i)), sum("cert"), sampleBody(i))
		require.NoError(t, err)
		out[i] = d
	}
	return out
}

func signed(t require.TestingT, n int) []Record {
	rs, err := Sign(testKey(1), drafts(t, n))
	require.NoError(t, err)
	return rs
}

func TestEveryBatchSizeVerifiesAndEncodes(t *testing.T) {
	for n := 1; n <= MaxBatch; n++ {
		v := NewVerifier(4)
		for i, r := range signed(t, n) {
			require.NoError(t, v.Verify(r), "record %d of %d", i, n)
			b := r.Encode()
			require.Len(t, b, r.Size())
			require.LessOrEqual(t, len(b), MaxSize)
			got, err := Decode(b)
			require.NoError(t, err)
			require.Equal(t, r, got)
			require.Equal(t, b, got.Encode())
			require.NoError(t, v.Verify(got.WithoutBody()))
			require.Equal(t, r.ID(), got.WithoutBody().ID())
		}
	}
}

func TestBatchSizesOutOfBounds(t *testing.T) {
	_, err := Sign(testKey(1), nil)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = Sign(testKey(1), drafts(t, MaxBatch+1))
	require.ErrorIs(t, err, ErrInvalid)
	_, err = Sign(testKey(1)[:32], drafts(t, 1))
	require.ErrorIs(t, err, ErrKey)
	two := drafts(t, 2)
	two[1].Library = sum("another")
	_, err = Sign(testKey(1), two)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestABatchCostsOneSignatureCheck(t *testing.T) {
	v := NewVerifier(8)
	for _, r := range signed(t, MaxBatch) {
		require.NoError(t, v.Verify(r))
	}
	require.Equal(t, 1, v.batches.Len())
	require.Equal(t, 1, v.keys.Len())
	// A failure leaves nothing behind.
	bad := signed(t, 2)[0]
	bad.Signature[0] ^= 1
	require.ErrorIs(t, v.Verify(bad), ErrSignature)
	require.Equal(t, 1, v.batches.Len())
}

func TestVerifierForgetsTheOldest(t *testing.T) {
	v := NewVerifier(2)
	for i := range 10 {
		rs, err := Sign(testKey(byte(i)), drafts(t, 1))
		require.NoError(t, err)
		require.NoError(t, v.Verify(rs[0]))
	}
	require.Equal(t, 2, v.batches.Len())
	require.Equal(t, 2, v.keys.Len())
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	v := NewVerifier(2)
	rs := signed(t, 16)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for g := range errs {
		wg.Go(func() {
			for _, r := range rs {
				if err := v.Verify(r); err != nil {
					errs[g] = err
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}

// Every byte of a record is under the signature, or part of it.
func TestAnyChangedByteFails(t *testing.T) {
	for _, n := range []int{1, 5} {
		v := NewVerifier(0)
		r := signed(t, n)[n-1]
		require.NoError(t, v.Verify(r))
		good := r.Encode()
		for i := range good {
			for _, bit := range []byte{1, 0x80} {
				b := append([]byte(nil), good...)
				b[i] ^= bit
				got, err := Decode(b)
				if err == nil {
					err = v.Verify(got)
				}
				require.Error(t, err, "byte %d of %d", i, len(good))
			}
		}
		for i := range good {
			_, err := Decode(good[:i])
			require.ErrorIs(t, err, wire.ErrMalformed)
		}
		_, err := Decode(append(good, 0))
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
}

// An inner node, offered as if it were a record's place in a smaller tree, does
// not reach the signed root, and neither does a path under another count.
func TestProofsDoNotTransfer(t *testing.T) {
	v := NewVerifier(0)
	rs := signed(t, 8)
	r := rs[0]
	r.Count, r.Siblings = 4, r.Siblings[:2]
	require.ErrorIs(t, v.Verify(r), ErrSignature)
	r = rs[0]
	r.Index = 1
	require.ErrorIs(t, v.Verify(r), ErrSignature)
	r = rs[0]
	r.Count = 7
	require.ErrorIs(t, v.Verify(r), ErrSignature)
	r = rs[0]
	r.Siblings = r.Siblings[:2]
	require.ErrorIs(t, v.Verify(r), ErrInvalid)
	r = rs[0]
	r.Proof = rs[1].Proof
	require.ErrorIs(t, v.Verify(r), ErrSignature)
}

func TestPathLengths(t *testing.T) {
	for n := 1; n <= MaxBatch; n++ {
		for i, r := range signed(t, n) {
			require.Len(t, r.Siblings, pathLen(i, n))
			require.LessOrEqual(t, len(r.Siblings), maxPath)
		}
	}
}

func TestRulesOfEachKind(t *testing.T) {
	lib, cert, subject := sum("library"), sum("cert"), sum("subject")
	body, err := sampleBody(1).Encode()
	require.NoError(t, err)
	ok := []Draft{
		{Kind: Announce, Library: lib, Cert: cert, Subject: subject, Body: body},
		{Kind: Edit, Library: lib, Cert: cert, Subject: subject, Body: body},
		{Kind: Tombstone, Library: lib, Cert: cert, Subject: subject},
		{Kind: Description, Library: lib, Cert: cert, Body: []byte{1}},
		{Kind: Invite, Library: lib, Cert: cert, Subject: subject, Body: []byte{1}},
		{Kind: Member, Library: lib, Cert: cert, Subject: subject, Body: []byte{1}},
		{Kind: Revocation, Library: lib, Cert: cert, Subject: subject, Body: []byte{1}},
	}
	for _, d := range ok {
		rs, err := Sign(testKey(1), []Draft{d})
		require.NoError(t, err, d.Kind)
		require.NoError(t, NewVerifier(1).Verify(rs[0]))
	}
	bad := map[string]Draft{
		"no library":              {Kind: Tombstone, Cert: cert, Subject: subject},
		"no certificate":          {Kind: Tombstone, Library: lib, Subject: subject},
		"no asset":                {Kind: Tombstone, Library: lib, Cert: cert},
		"tombstone with body":     {Kind: Tombstone, Library: lib, Cert: cert, Subject: subject, Body: body},
		"announce without body":   {Kind: Announce, Library: lib, Cert: cert, Subject: subject},
		"announce of nonsense":    {Kind: Announce, Library: lib, Cert: cert, Subject: subject, Body: []byte("x")},
		"description of an asset": {Kind: Description, Library: lib, Cert: cert, Subject: subject, Body: []byte{1}},
		"description, no body":    {Kind: Description, Library: lib, Cert: cert},
		"invite of nothing":       {Kind: Invite, Library: lib, Cert: cert, Body: []byte{1}},
		"body too large":          {Kind: Description, Library: lib, Cert: cert, Body: make([]byte, MaxBody+1)},
		"unknown kind":            {Kind: 9, Library: lib, Cert: cert, Subject: subject},
	}
	for name, d := range bad {
		_, err := Sign(testKey(1), []Draft{d})
		require.ErrorIs(t, err, ErrInvalid, name)
	}
	// Signed all the same, by an author with a program of its own.
	rs, err := Sign(testKey(1), ok[3:4])
	require.NoError(t, err)
	require.ErrorIs(t, NewVerifier(1).Verify(rs[0].WithoutBody()), ErrInvalid, "control records are never sent without body")
}

func TestStrictCryptography(t *testing.T) {
	r := signed(t, 1)[0]
	v := NewVerifier(0)

	t.Run("small order", func(t *testing.T) {
		// All eight points of small order, and the other encodings of those that
		// have one.
		for _, s := range smallOrder(t) {
			bad := r
			bad.Author = s
			require.ErrorIs(t, v.Verify(bad), ErrKey, "%x", s)
		}
	})
	t.Run("not canonical", func(t *testing.T) {
		// y = p+3 encodes the point with y = 3 a second time.
		for y := byte(0); y < 19; y++ {
			pub := [32]byte{0: 0xed + y, 31: 0x7f}
			for i := 1; i < 31; i++ {
				pub[i] = 0xff
			}
			bad := r
			bad.Author = pub
			require.ErrorIs(t, v.Verify(bad), ErrKey, "p+%d", y)
		}
	})
	t.Run("S plus L", func(t *testing.T) {
		order := [32]byte{0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 31: 0x10}
		bad := r
		carry := 0
		for i := range order {
			carry += int(bad.Signature[32+i]) + int(order[i])
			bad.Signature[32+i], carry = byte(carry), carry>>8
		}
		require.Zero(t, carry)
		require.ErrorIs(t, v.Verify(bad), ErrSignature)
	})
	t.Run("forged under the identity", func(t *testing.T) {
		bad := r
		bad.Author = [32]byte{0: 1}
		bad.Signature = [64]byte{0: 1}
		require.ErrorIs(t, v.Verify(bad), ErrKey)
	})
	t.Run("zero", func(t *testing.T) {
		bad := r
		bad.Signature = [64]byte{}
		require.ErrorIs(t, v.Verify(bad), ErrSignature)
	})
	require.NoError(t, v.Verify(r))
}

func smallOrder(t *testing.T) (out [][32]byte) {
	// A point whose eightfold is the identity, found by multiplying points of the
	// full group by the prime order L of the main subgroup.
	seen := map[[32]byte]bool{}
	for y := byte(2); len(seen) < 8; y++ {
		p, err := new(edwards25519.Point).SetBytes(append([]byte{y}, make([]byte, 31)...))
		if err != nil {
			continue
		}
		// L·p = (L-1)·p + p; L-1 is a canonical scalar.
		minus1 := edwards25519.NewScalar()
		one, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
		require.NoError(t, err)
		minus1.Negate(one)
		q := new(edwards25519.Point).ScalarMult(minus1, p)
		q.Add(q, p)
		seen[[32]byte(q.Bytes())] = true
		q.Negate(q)
		seen[[32]byte(q.Bytes())] = true
	}
	for s := range seen {
		out = append(out, s)
		s[31] ^= 0x80 // the other sign: another small point, or a second encoding of this one
		out = append(out, s)
	}
	return out
}

func TestClock(t *testing.T) {
	c := ClockAt(epoch)
	require.Equal(t, epoch.UnixMilli(), c.Milli())
	require.Zero(t, c.Counter())
	require.Equal(t, c+1, c.Next(epoch), "the same millisecond")
	require.Equal(t, c+1, c.Next(epoch.Add(-time.Hour)), "a machine whose clock went back")
	require.Equal(t, ClockAt(epoch.Add(time.Millisecond)), c.Next(epoch.Add(time.Millisecond)))
	require.Equal(t, ClockAt(epoch.Add(time.Millisecond)), (c | 0xffff).Next(epoch), "the counter carries")
	require.Equal(t, ^Clock(0), (^Clock(0)).Next(epoch), "the end of time")
	require.Equal(t, Clock(0), ClockAt(time.Unix(-5, 0)))
	require.Equal(t, Clock(maxMilli)<<16, ClockAt(time.UnixMilli(1<<50)))
	require.Equal(t, "2023-11-14T22:13:20.000Z+7", (c + 7).String())
	require.True(t, c.Time().Equal(epoch))
	rapid.Check(t, func(t *rapid.T) {
		c := Clock(rapid.Uint64().Draw(t, "c"))
		o := Clock(rapid.Uint64().Draw(t, "o"))
		now := time.UnixMilli(rapid.Int64Range(-1e12, 1<<49).Draw(t, "now"))
		m := c.Merge(o)
		require.Equal(t, m, o.Merge(c))
		n := m.Next(now)
		require.True(t, n > m || m == ^Clock(0), "later than all it has seen")
		require.GreaterOrEqual(t, n, ClockAt(now))
	})
}

func TestDeferred(t *testing.T) {
	require.False(t, Deferred(Header{Clock: ClockAt(epoch.Add(MaxFuture)) | 0xffff}, epoch))
	require.True(t, Deferred(Header{Clock: ClockAt(epoch.Add(MaxFuture + time.Millisecond))}, epoch))
	require.False(t, Deferred(Header{}, epoch))
	require.True(t, Deferred(Header{Clock: ^Clock(0)}, epoch))
}

func TestAssetBodyRoundTrip(t *testing.T) {
	b := sampleBody(3)
	enc, err := b.Encode()
	require.NoError(t, err)
	got, err := DecodeAsset(enc)
	require.NoError(t, err)
	require.Equal(t, b, got)
	a := can.Asset{Timestamp: b.Timestamp, Metadata: b.Metadata()}
	require.Equal(t, b, FromAsset(a, b.Root, b.Size))
	require.True(t, b.Equal(got))
	got.Tags[0] = "other"
	require.False(t, b.Equal(got))
	require.True(t, AssetBody{}.Equal(AssetBody{Tags: []string{}}))
}

func TestTextThatIsNotUTF8IsReplaced(t *testing.T) {
	b := FromAsset(can.Asset{Metadata: can.Metadata{Filename: "a\xff\xfeb", Tags: []string{"\xff", "é"}}}, [32]byte{}, 0)
	require.Equal(t, "a\uFFFDb", b.Filename)
	require.Equal(t, []string{"\uFFFD", "é"}, b.Tags)
	require.NoError(t, Fits(b))
	require.Equal(t, b, FromAsset(can.Asset{Metadata: b.Metadata()}, [32]byte{}, 0), "once is enough")
}

func TestFitsNamesTheField(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		b    AssetBody
		want error
		text string
	}{
		"MIME type":   {AssetBody{MIMEType: long(MaxName + 1)}, ErrTooLarge, "MIME type"},
		"application": {AssetBody{Application: long(64 << 10)}, ErrTooLarge, "application"},
		"user":        {AssetBody{User: long(MaxName + 1)}, ErrTooLarge, "user"},
		"description": {AssetBody{Description: long(MaxDescription + 1)}, ErrTooLarge, "description"},
		"tag":         {AssetBody{Tags: []string{long(MaxTag + 1)}}, ErrTooLarge, "tag"},
		"tags":        {AssetBody{Tags: make([]string, MaxTags+1)}, ErrTooLarge, "257 tags"},
		"file name":   {AssetBody{Filename: long(MaxName + 1)}, ErrTooLarge, "file name"},
		"path":        {AssetBody{Path: long(MaxPath + 1)}, ErrTooLarge, "path"},
		"size":        {AssetBody{Size: 1 << 63}, ErrTooLarge, "size"},
		"UTF-8":       {AssetBody{User: "\xff"}, ErrInvalid, "user"},
		"total":       {AssetBody{Description: long(MaxDescription), Path: long(MaxPath), Filename: long(MaxName), User: long(MaxName), Application: long(MaxName), MIMEType: long(MaxName)}, ErrTooLarge, "metadata"},
	} {
		err := Fits(c.b)
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.text, name)
		_, err = c.b.Encode()
		require.ErrorIs(t, err, c.want, name)
	}
	full := AssetBody{Description: long(MaxDescription), Path: long(MaxPath), Filename: long(MaxName), User: long(MaxName), Application: long(MaxName)}
	full.Tags = make([]string, 100)
	enc, err := full.Encode()
	require.NoError(t, err)
	require.LessOrEqual(t, len(enc), MaxBody)
}

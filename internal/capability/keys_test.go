package capability

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func key32(t *testing.T, text string) [32]byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	require.NoError(t, err)
	return [32]byte(b)
}

// All encodings of points of small order, canonical or not (Chalkias, Garillot,
// Nikolaenko 2020, table 6; https://github.com/novifinancial/ed25519-speccheck).
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func TestCheckKey(t *testing.T) {
	for _, k := range smallOrder {
		require.ErrorIs(t, CheckKey(key32(t, k)), ErrKey, k)
	}
	// y ≥ p: 19 encodings, all non-canonical, on the curve or not.
	for low := 0xed; low <= 0xff; low++ {
		for _, top := range []byte{0x7f, 0xff} {
			k := [32]byte(bytes.Repeat([]byte{0xff}, 32))
			k[0], k[31] = byte(low), top
			require.ErrorIs(t, CheckKey(k), ErrKey)
		}
	}
	require.ErrorIs(t, CheckKey([32]byte{2}), ErrKey, "not on the curve")
	rand := newStream("keys")
	for range 100 {
		k, err := NewSigningKey(rand)
		require.NoError(t, err)
		require.NoError(t, CheckKey(k.Public()))
	}
}

func TestCheckSealKey(t *testing.T) {
	dummy, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	for _, k := range x25519Small {
		b := key32(t, k)
		require.ErrorIs(t, checkSealKey(b), ErrKey, k)
		pub, err := ecdh.X25519().NewPublicKey(b[:])
		require.NoError(t, err)
		_, err = dummy.ECDH(pub)
		require.Error(t, err, "the standard library agrees on %s", k)
	}
	for low := 0xed; low <= 0xff; low++ {
		k := [32]byte(bytes.Repeat([]byte{0xff}, 32))
		k[0], k[31] = byte(low), 0x7f
		require.ErrorIs(t, checkSealKey(k), ErrKey)
	}
	require.ErrorIs(t, checkSealKey([32]byte{0: 9, 31: 0x80}), ErrKey, "the unused bit")
	require.NoError(t, checkSealKey([32]byte{9}))
	top := [32]byte(bytes.Repeat([]byte{0xff}, 32))
	top[0], top[31] = 0xeb, 0x7f
	require.NoError(t, checkSealKey(top), "p-2")
}

// A signature with S+L in place of S verifies under a lax implementation and
// would give a certificate a second form.
func TestSignatureWithLargerScalarIsRefused(t *testing.T) {
	f, root := newFamily(t, "malleable")
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	c := root.chain[0]
	s := make([]byte, 32)
	for i := range s {
		s[i] = c.Signature[63-i]
	}
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), l).FillBytes(make([]byte, 32))
	for i := range sum {
		c.Signature[32+i] = sum[31-i]
	}
	require.Equal(t, root.id(), c.ID(), "the id does not depend on it")
	_, err := Chain{c}.Verify(f.library, nil)
	require.ErrorIs(t, err, ErrChain)
}

func TestKeysDifferByPurposeAndLibrary(t *testing.T) {
	d := DeviceFromSeed(repeat(1))
	seen := make(map[[32]byte]string)
	for name, k := range map[string][32]byte{
		"device": d.Key().Public(), "author 1": d.Author(repeat(1)).Public(), "author 2": d.Author(repeat(2)).Public(),
		"seal 1": d.Seal(repeat(1)).Public(), "seal 2": d.Seal(repeat(2)).Public(),
	} {
		require.Empty(t, seen[k], name)
		seen[k] = name
	}
	require.Equal(t, d.Author(repeat(1)).Public(), DeviceFromSeed(repeat(1)).Author(repeat(1)).Public())
	require.Equal(t, repeat(1), d.Seed())
}

func TestZeroKeysDoNothing(t *testing.T) {
	var d Device
	require.True(t, d.IsZero() && d.Key().IsZero() && d.Author([32]byte{}).IsZero() && d.Seal([32]byte{}).IsZero())
	require.Zero(t, d.PeerID())
	require.Zero(t, d.Seed())
	require.Zero(t, SigningKey{}.Sign([]byte("x")))
	require.Zero(t, SigningKey{}.Seed())
	require.Zero(t, SealKey{}.Public())
	require.True(t, SecretFromBytes([32]byte{}).IsZero())
	require.True(t, Secret{}.Lasting().IsZero())
	require.Zero(t, Secret{}.ReconcileKey())
	require.Zero(t, Rendezvous(Secret{}, 0, joinTime))
	_, err := NewRoot(SigningKey{}, MemberKeys{}, newStream("z"))
	require.ErrorIs(t, err, ErrKey)
	broken := io.MultiReader(strings.NewReader("too little"))
	_, err = NewSecret(broken)
	require.True(t, errors.Is(err, io.ErrUnexpectedEOF))
}

func TestRendezvousChangesWithDayEpochAndSecret(t *testing.T) {
	a, b := SecretFromBytes(repeat(1)), SecretFromBytes(repeat(2))
	day := time.Date(2024, 2, 28, 23, 0, 0, 0, time.UTC)
	key := Rendezvous(a, 0, day)
	require.NotEqual(t, key, Rendezvous(b, 0, day))
	require.NotEqual(t, key, Rendezvous(a, 1, day))
	require.NotEqual(t, key, Rendezvous(a, 0, day.Add(time.Hour)))
	require.Equal(t, key, Rendezvous(a, 0, day.Add(-22*time.Hour)))
	require.Equal(t, key, Rendezvous(a, 0, day.In(time.FixedZone("far", 9*3600))), "the day of UTC, wherever one is")
	require.Equal(t, [3][32]byte{
		Rendezvous(a, 3, day.AddDate(0, 0, -1)), Rendezvous(a, 3, day), Rendezvous(a, 3, time.Date(2024, 2, 29, 1, 0, 0, 0, time.UTC)),
	}, RendezvousWindow(a, 3, day))
}

func TestSecretsNeverPrint(t *testing.T) {
	const canary = "canary-canary-canary-canary-0123"
	raw := [32]byte([]byte(canary))
	f, root := newFamily(t, "canary")
	tk := f.ticket(root, InviteOptions{})
	tk.Secret, tk.Name = SecretFromBytes(raw), canary
	op, _, err := NewOpener(Channel{Self: repeat(1), Peer: repeat(2)}, []Secret{tk.Secret}, f.rand)
	require.NoError(t, err)
	d, k, s := DeviceFromSeed(raw), SigningKeyFromSeed(raw), SecretFromBytes(raw)
	type private struct {
		d Device
		k SigningKey
		s Secret
		x SealKey
		e EpochKeys
	}
	ek := EpochKeys{Secret: s, Lasting: s}
	tk2 := tk
	tk2.Name = ""
	type hiddenTicket struct{ tk Ticket }
	seal := d.Seal(f.library)
	values := map[string]any{
		"device": d, "key": k, "secret": s, "seal": seal, "epoch": ek, "ticket": tk, "*ticket": &tk, "opener": op,
		"unexported": private{d, k, s, seal, ek}, "in a slice": []any{d, k, s, tk}, "in a map": map[string]Secret{"x": s},
		"unexported ticket": hiddenTicket{tk2}, "error": fmt.Errorf("with %v and %s", s, tk),
		"admission": Admission{Device: d, Keys: ek},
	}
	// The forms a dump could take, of the seed and of what derives from it.
	var needles []string
	priv := k.h.get().priv
	auth := s.h.get().auth
	for _, b := range [][]byte{raw[:], priv[:32], auth[:], seal.h.get().priv.Bytes()} {
		list := fmt.Sprint(b[:8])
		needles = append(needles, string(b[:8]), hex.EncodeToString(b[:8]), strings.Trim(list, "[]"),
			strings.ToUpper(hex.EncodeToString(b[:8])), strings.ReplaceAll(strings.Trim(list, "[]"), " ", ","), strings.Trim(fmt.Sprintf("%#v", b[:4]), "[]byte{}"))
	}
	text := export(t, tk2)
	needles = append(needles, text[8:40])
	for name, v := range values {
		var out []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			out = append(out, fmt.Sprintf(verb, v))
		}
		if b, err := json.Marshal(v); err == nil {
			out = append(out, string(b))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Error("x", "v", v, slog.Group("g", "v", v))
		slog.New(slog.NewJSONHandler(&log, nil)).Error("x", "v", v, slog.Any("w", []any{v}))
		out = append(out, log.String())
		for _, o := range out {
			for _, n := range needles {
				require.NotContains(t, o, n, name)
			}
		}
	}
	require.Equal(t, redactedText, s.String())
	require.Equal(t, redactedText, fmt.Sprintf("%#v", k))
	require.Equal(t, ticketRedacted, fmt.Sprintf("%+v", tk))
	require.Equal(t, "read,write,invite,admin", AllRights.String())
	require.Equal(t, "write,unknown(0x10)", (Write | 16).String())
	require.Equal(t, "none", Rights(0).String())
}

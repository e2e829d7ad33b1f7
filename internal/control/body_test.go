package control

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

var sample = Description{
	Name: "Ann's pictures", Filter: filter.Filter{Application: "camera", Tags: []string{"holiday"}},
	Replace: ReplaceOwn, Delete: DeleteTrash,
}

// bodies returns one body of each kind, from fixed keys.
func bodies(t require.TestingT) map[string][]byte {
	w := newWorld(t)
	guest := w.owner.admit(capability.Write)
	d, err := sample.Encode()
	require.NoError(t, err)
	return map[string][]byte{
		"description": d,
		"root":        w.owner.joined[0].Body,
		"invite":      guest.joined[0].Body,
		"member":      guest.joined[1].Body,
	}
}

// What a released version wrote decodes for ever; the file is never rewritten.
func TestFrozenVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/bodies.txt")
	require.NoError(t, err)
	want := bodies(t)
	seen := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, digits, _ := strings.Cut(line, " ")
		require.Equal(t, hex.EncodeToString(want[name]), digits, name)
		seen++
	}
	require.Equal(t, len(want), seen)

	d, err := DecodeDescription(want["description"])
	require.NoError(t, err)
	require.True(t, sample.Equal(d))
	require.Equal(t, "own trash", d.Replace.String()+" "+d.Delete.String())
}

func TestBodiesAreStrict(t *testing.T) {
	decode := map[string]func([]byte) error{
		"description": func(b []byte) error { _, err := DecodeDescription(b); return err },
		"invite":      func(b []byte) error { _, err := DecodeInvite(b); return err },
		"member":      func(b []byte) error { _, err := DecodeMember(b); return err },
	}
	all := bodies(t)
	for name, fn := range decode {
		good := all[name]
		require.NoError(t, fn(good))
		for i := range good {
			require.ErrorIs(t, fn(good[:i]), wire.ErrMalformed, name)
		}
		require.ErrorIs(t, fn(append(bytes.Clone(good), 0)), wire.ErrMalformed, name)
		require.ErrorIs(t, fn(append([]byte{2}, good[1:]...)), wire.ErrMalformed, name)
	}
	bad := bytes.Clone(all["description"])
	bad[1] = 2
	require.ErrorIs(t, decode["description"](bad), wire.ErrMalformed, "an unknown policy")
	bad = bytes.Clone(all["invite"])
	clear(bad[1:33])
	require.ErrorIs(t, decode["invite"](bad), wire.ErrMalformed, "no secret")
	swapped := append([]byte{1}, all["invite"][33:]...)
	require.ErrorIs(t, decode["member"](swapped), wire.ErrMalformed, "an invite in a membership")
}

func TestBodiesThatCannotBeMade(t *testing.T) {
	w := newWorld(t)
	root := w.owner.chain.Last()
	for _, d := range []Description{
		{Name: strings.Repeat("x", MaxName+1)}, {Name: "\xff"}, {Replace: 2}, {Delete: 2}, {Filter: filter.Filter{Tags: []string{""}}},
	} {
		_, err := d.Encode()
		require.ErrorIs(t, err, ErrInvalid)
		_, err = NewDescription(1, w.lib, w.owner.cert(), d)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err := NewInvite(1, root, w.owner.secret())
	require.ErrorIs(t, err, ErrInvalid)
	ch, _, _ := w.owner.invite(capability.InviteOptions{})
	_, err = NewInvite(1, ch.Last(), capability.Secret{})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = NewMember(1, ch.Last())
	require.ErrorIs(t, err, ErrInvalid)
	require.Equal(t, "replace 7", Replace(7).String())
	require.Equal(t, "delete 7", Delete(7).String())
}

// The largest bodies there can be fit into a record.
func TestTheLargestBodiesFit(t *testing.T) {
	const others = 1 + 1 + 1 + 2 + MaxName + 4
	require.LessOrEqual(t, others+filter.MaxEncoded, record.MaxBody)
	require.LessOrEqual(t, 1+32+400+capability.MaxScope, record.MaxBody)
}

func FuzzDecodeDescription(f *testing.F) {
	f.Add(bodies(f)["description"])
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := DecodeDescription(in)
		if err != nil {
			return
		}
		if out, err := d.Encode(); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}

func FuzzDecodeInvite(f *testing.F) {
	f.Add(bodies(f)["invite"])
	f.Fuzz(func(t *testing.T, in []byte) {
		i, err := DecodeInvite(in)
		if err != nil {
			return
		}
		if out, err := i.Encode(); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}

func FuzzDecodeMember(f *testing.F) {
	f.Add(bodies(f)["root"])
	f.Add(bodies(f)["member"])
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := DecodeMember(in)
		if err != nil {
			return
		}
		if out, err := EncodeMember(c); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}

// Whatever passes the record decoder, the set takes it or says why not.
func FuzzAdd(f *testing.F) {
	w, all := everything(f)
	for _, r := range all {
		f.Add(r.Encode())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := record.Decode(in)
		if err != nil {
			return
		}
		s := New(w.lib)
		addAll(t, s, w.owner.joined...)
		before := s.Len()
		changed, err := s.Add(r)
		if changed != (s.Len() == before+1) || changed && err != nil {
			t.Fatalf("changed %v, %d records, %v", changed, s.Len(), err)
		}
		for range s.Records() {
			s.Description()
			s.Members()
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	w := newWorld(b)
	s := New(w.lib)
	addAll(b, s, w.owner.joined...)
	h := w.owner.announce("a", record.Announce, w.tick())
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Check(h); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is one member with its invite.
func BenchmarkAddMember(b *testing.B) {
	w := newWorld(b)
	joined := w.owner.admit(capability.Write).joined
	b.ReportAllocs()
	for b.Loop() {
		s := New(w.lib)
		addAll(b, s, w.owner.joined...)
		addAll(b, s, joined...)
	}
}

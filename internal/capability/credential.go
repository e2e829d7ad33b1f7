package capability

import "github.com/cansync/cansync/internal/wire"

// Credential is what each side shows for a match after the hello: its membership
// in the library that the handle stands for.
type Credential struct {
	Handle uint16
	Bundle Bundle
}

// Encode returns the encoding of c: the handle in two bytes, then the bundle.
func (c Credential) Encode() []byte { return c.Bundle.Append(wire.AppendU16(nil, c.Handle)) }

// DecodeCredential is the inverse of [Credential.Encode]. It verifies nothing:
// see [Bundle.VerifyPeer]. Errors match wire.ErrMalformed.
func DecodeCredential(p []byte) (Credential, error) {
	r := wire.NewReader(p)
	c := Credential{Handle: r.U16()}
	if err := r.Err(); err != nil {
		return Credential{}, err
	}
	var err error
	if c.Bundle, err = DecodeBundle(r.Rest()); err != nil {
		return Credential{}, err
	}
	return c, nil
}

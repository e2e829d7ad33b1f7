package capability

import (
	"encoding/hex"
	"fmt"

	"filippo.io/edwards25519"
)

// CheckKey refuses an Ed25519 public key that is not the canonical encoding of a
// point, or whose point has small order. Under such keys one signature verifies
// for many messages or one key has several names (Chalkias, Garillot, Nikolaenko:
// Taming the many EdDSAs, 2020). Errors match [ErrKey].
func CheckKey(key [32]byte) error {
	p, err := new(edwards25519.Point).SetBytes(key[:])
	if err != nil {
		return fmt.Errorf("%w: not on the curve", ErrKey)
	}
	if [32]byte(p.Bytes()) != key { // SetBytes takes y ≥ p and a signed zero
		return fmt.Errorf("%w: not canonical", ErrKey)
	}
	if p.MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("%w: small order", ErrKey)
	}
	return nil
}

// x25519Small are the canonical u-coordinates of small order on Curve25519 and
// its twist: 0, 1, the two of order 8, and p-1 (https://cr.yp.to/ecdh.html).
var x25519Small = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// checkSealKey refuses an X25519 public key that is not below 2^255-19 or has
// small order.
func checkSealKey(key [32]byte) error {
	text := hex.EncodeToString(key[:])
	for _, small := range x25519Small {
		if text == small {
			return fmt.Errorf("%w: small order", ErrKey)
		}
	}
	// Little-endian: at or above p means every byte but the lowest is full.
	if key[31] < 0x7f {
		return nil
	}
	if key[31] == 0x7f {
		for _, b := range key[1:31] {
			if b != 0xff {
				return nil
			}
		}
		if key[0] < 0xed {
			return nil
		}
	}
	return fmt.Errorf("%w: not canonical", ErrKey)
}

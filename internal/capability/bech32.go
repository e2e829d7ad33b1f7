package capability

import (
	"errors"
	"strings"
)

// The text of a ticket is Bech32m (BIP 350) with two differences: there is no
// limit of 90 characters, and only lower case is taken. The checksum is a cyclic
// code whose generator has a constant term, so that a change of one character is
// found at any length, and the worst an error burst gets is one chance in 2^30.

const (
	ticketHRP     = "cansync"
	ticketPrefix  = ticketHRP + "1"
	bech32Charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	bech32mConst  = 0x2bc830a3
	checksumChars = 6
)

var (
	errBechPrefix   = errors.New("it does not begin with " + ticketPrefix)
	errBechShort    = errors.New("it is cut short")
	errBechChar     = errors.New("it has a character no ticket has")
	errBechChecksum = errors.New("its checksum does not fit: a character was changed, added or lost")
	errBechPadding  = errors.New("its last character is not canonical")
)

func polymodStep(chk uint32, v byte) uint32 {
	top := chk >> 25
	chk = chk&0x1ffffff<<5 ^ uint32(v)
	chk ^= -(top & 1) & 0x3b6a57b2
	chk ^= -(top >> 1 & 1) & 0x26508e6d
	chk ^= -(top >> 2 & 1) & 0x1ea119fa
	chk ^= -(top >> 3 & 1) & 0x3d4233dd
	return chk ^ -(top>>4&1)&0x2a1462b3
}

// polymodPrefix is the checksum's state after the human-readable part.
func polymodPrefix() uint32 {
	chk := uint32(1)
	for i := range len(ticketHRP) {
		chk = polymodStep(chk, ticketHRP[i]>>5)
	}
	chk = polymodStep(chk, 0)
	for i := range len(ticketHRP) {
		chk = polymodStep(chk, ticketHRP[i]&31)
	}
	return chk
}

// encodeBech32 returns the text of payload.
func encodeBech32(payload []byte) string {
	var sb strings.Builder
	sb.Grow(len(ticketPrefix) + (len(payload)*8+4)/5 + checksumChars)
	sb.WriteString(ticketPrefix)
	chk := polymodPrefix()
	put := func(v byte) {
		chk = polymodStep(chk, v)
		sb.WriteByte(bech32Charset[v])
	}
	var acc uint32
	var bits uint
	for _, b := range payload {
		acc = acc<<8 | uint32(b)
		for bits += 8; bits >= 5; {
			bits -= 5
			put(byte(acc >> bits & 31))
		}
	}
	if bits > 0 {
		put(byte(acc << (5 - bits) & 31))
	}
	for range checksumChars {
		chk = polymodStep(chk, 0)
	}
	chk ^= bech32mConst
	for i := range checksumChars {
		sb.WriteByte(bech32Charset[chk>>(5*(checksumChars-1-i))&31])
	}
	return sb.String()
}

// decodeBech32 is the inverse of encodeBech32. With a wrong checksum it returns
// the payload nonetheless, for a better message only.
func decodeBech32(text string) ([]byte, error) {
	if !strings.HasPrefix(text, ticketPrefix) {
		return nil, errBechPrefix
	}
	data := text[len(ticketPrefix):]
	if len(data) < checksumChars {
		return nil, errBechShort
	}
	values := make([]byte, len(data))
	chk := polymodPrefix()
	for i := range len(data) {
		v := strings.IndexByte(bech32Charset, data[i])
		if v < 0 {
			return nil, errBechChar
		}
		values[i] = byte(v)
		chk = polymodStep(chk, byte(v))
	}
	values = values[:len(values)-checksumChars]
	payload := make([]byte, 0, len(values)*5/8)
	var acc uint32
	var bits uint
	for _, v := range values {
		acc = acc<<5 | uint32(v)
		if bits += 5; bits >= 8 {
			bits -= 8
			payload = append(payload, byte(acc>>bits))
		}
	}
	switch {
	case chk != bech32mConst:
		return payload, errBechChecksum
	case bits >= 5 || acc&(1<<bits-1) != 0:
		return payload, errBechPadding
	}
	return payload, nil
}

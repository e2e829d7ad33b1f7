package service

import (
	"bufio"
	"encoding/binary"
	"io"
)

// orientation reads the EXIF orientation (1 to 8) of a JPEG; 1 when it says
// nothing that makes sense. JEITA CP-3451 (EXIF 2.3), section 4.6.
func orientation(r io.Reader) int {
	br := bufio.NewReader(r)
	var head [2]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return 1
	}
	for range 64 { // segments before the picture; more is not sensible
		var seg [4]byte
		if _, err := io.ReadFull(br, seg[:]); err != nil || seg[0] != 0xff || seg[1] == 0xda {
			return 1
		}
		size := int(binary.BigEndian.Uint16(seg[2:])) - 2
		if size < 0 {
			return 1
		}
		if seg[1] != 0xe1 {
			if _, err := br.Discard(size); err != nil {
				return 1
			}
			continue
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(br, data); err != nil {
			return 1
		}
		if len(data) > 6 && string(data[:6]) == "Exif\x00\x00" {
			return tiffOrientation(data[6:])
		}
	}
	return 1
}

func tiffOrientation(b []byte) int {
	if len(b) < 8 {
		return 1
	}
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	at := uint64(order.Uint32(b[4:]))
	if at+2 > uint64(len(b)) {
		return 1
	}
	n := uint64(order.Uint16(b[at:]))
	for i := range n {
		e := at + 2 + 12*i
		if e+12 > uint64(len(b)) {
			return 1
		}
		if order.Uint16(b[e:]) == 0x0112 {
			if v := order.Uint16(b[e+8:]); v >= 1 && v <= 8 {
				return int(v)
			}
			return 1
		}
	}
	return 1
}

package capability

import (
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/cansync/cansync/internal/wire"
)

// Rendezvous returns the key under which members who know the secret look for
// each other on a day (of UTC). For an epoch secret, epoch is its number; for an
// invite's secret, 0. Who does not know the secret cannot tell the key from
// random bytes, nor two keys of one library from those of two. The zero secret
// has no meeting place: the result is zero and must not be advertised.
func Rendezvous(s Secret, epoch uint32, day time.Time) (key [32]byte) {
	if s.IsZero() {
		return key
	}
	raw := s.Bytes()
	mac := hmac.New(sha256.New, derive(raw[:], nil, "cansync/rdv/v1", 32))
	y, m, d := day.UTC().Date()
	msg := append([]byte(nil), "cansync/rendezvous/v1\x00"...)
	msg = wire.AppendU32(msg, epoch)
	msg = wire.AppendU16(msg, uint16(y))
	mac.Write(append(msg, byte(m), byte(d)))
	return [32]byte(mac.Sum(nil))
}

// RendezvousWindow returns the keys of yesterday, today and tomorrow: all that a
// peer whose clock is off by less than a day may be using.
func RendezvousWindow(s Secret, epoch uint32, now time.Time) [3][32]byte {
	// Noon keeps clear of whatever a calendar does at midnight.
	y, m, d := now.UTC().Date()
	noon := time.Date(y, m, d, 12, 0, 0, 0, time.UTC)
	var keys [3][32]byte
	for i := range keys {
		keys[i] = Rendezvous(s, epoch, noon.AddDate(0, 0, i-1))
	}
	return keys
}

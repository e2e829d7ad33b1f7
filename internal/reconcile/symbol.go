package reconcile

import "encoding/binary"

// symbol is one coded symbol: of the ids mapped to it, the exclusive or, the
// exclusive or of their checksums, and how many they are. Symbols are linear: the
// difference of two sets' symbols is the symbol of the sets' difference, with
// one side's ids counted negative.
type symbol struct {
	sum   [4]uint64 // little-endian words of the ids
	check uint64
	count int64
}

func words(id *ID) [4]uint64 {
	return [4]uint64{
		binary.LittleEndian.Uint64(id[0:]), binary.LittleEndian.Uint64(id[8:]),
		binary.LittleEndian.Uint64(id[16:]), binary.LittleEndian.Uint64(id[24:]),
	}
}

func (s *symbol) id() (id ID) {
	for i, w := range s.sum {
		binary.LittleEndian.PutUint64(id[8*i:], w)
	}
	return id
}

func (s *symbol) apply(w *[4]uint64, check uint64, sign int64) {
	s.sum[0] ^= w[0]
	s.sum[1] ^= w[1]
	s.sum[2] ^= w[2]
	s.sum[3] ^= w[3]
	s.check ^= check
	s.count += sign
}

func (s *symbol) isZero() bool { return *s == symbol{} }

// addAll adds sign times the id to every symbol of symbols it is mapped to.
func (h hasher) addAll(symbols []symbol, id *ID, sign int64) {
	check, m := h.hash(id)
	w := words(id)
	for m.index < uint64(len(symbols)) {
		symbols[m.index].apply(&w, check, sign)
		m.next()
	}
}

// appendFixed appends the sum and the checksum, 40 bytes.
func (s *symbol) appendFixed(b []byte) []byte {
	for _, w := range s.sum {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return binary.LittleEndian.AppendUint64(b, s.check)
}

const fixedSize = 40

func (s *symbol) setFixed(b []byte) {
	_ = b[fixedSize-1]
	for i := range s.sum {
		s.sum[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	s.check = binary.LittleEndian.Uint64(b[32:])
}

// expected is the count that symbol i of a set of n ids has on average. Counts are
// sent as their distance from it, which is short. The paper aims at n/(1+i/2);
// its way of stepping, followed by mapping, hits i > 0 with probability exactly
// 8(i+1)/(2i+3)².
func expected(n int64, i int) int64 {
	if i == 0 {
		return n
	}
	k := int64(i)
	return n * (8 * (k + 1)) / ((2*k + 3) * (2*k + 3))
}

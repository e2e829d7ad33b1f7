package blob

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// stageMagic opens a bitmap file: kind and version of its layout.
const stageMagic = "cansync stage 1\n"

const stageHeadSize = len(stageMagic) + 3*32 + 8

var errStageMap = errors.New("blob: invalid bitmap file")

// appendStageMap appends the bitmap file of a stage: magic, library, digest, root,
// big-endian size, the bitmap's own encoding, and the first 16 bytes of the SHA-256
// of all that.
func appendStageMap(dst []byte, key StageKey, root [32]byte, size uint64, bits *Bitmap) []byte {
	at := len(dst)
	dst = append(dst, stageMagic...)
	dst = append(dst, key.Library[:]...)
	dst = append(dst, key.Digest[:]...)
	dst = append(dst, root[:]...)
	dst = binary.BigEndian.AppendUint64(dst, size)
	dst = bits.AppendTo(dst)
	sum := sha256.Sum256(dst[at:])
	return append(dst, sum[:sumSize]...)
}

// decodeStageMap reads a bitmap file. It returns errStageMap for anything that
// [appendStageMap] does not write for this key, and [ErrOtherStage] for a sound
// file about another root or size.
func decodeStageMap(p []byte, key StageKey, root [32]byte, size uint64) (*Bitmap, error) {
	if len(p) < stageHeadSize+sumSize || string(p[:len(stageMagic)]) != stageMagic {
		return nil, errStageMap
	}
	body := p[:len(p)-sumSize]
	if sum := sha256.Sum256(body); [sumSize]byte(sum[:sumSize]) != [sumSize]byte(p[len(body):]) {
		return nil, errStageMap
	}
	head := body[len(stageMagic):]
	if [32]byte(head) != key.Library || [32]byte(head[32:]) != key.Digest {
		return nil, errStageMap
	}
	if [32]byte(head[64:]) != root || binary.BigEndian.Uint64(head[96:]) != size {
		return nil, ErrOtherStage
	}
	bits, err := DecodeBitmap(body[stageHeadSize:], Groups(size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStageMap, err)
	}
	return bits, nil
}

// loadStageMap reads the durable bitmap of a stage, or returns fs.ErrNotExist or
// errStageMap.
func loadStageMap(dir stageFS, key StageKey, root [32]byte, size uint64) (*Bitmap, error) {
	f, err := dir.open(key.name(mapSuffix), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.size()
	if err != nil {
		return nil, err
	}
	// The longest bitmap file of the size that is expected. One of another stage
	// may be longer; its head alone says so, and is read to tell the two apart.
	limit := int64(stageHeadSize) + 1 + int64((Groups(size)+7)/8) + 2*sumSize
	if n > limit {
		head := make([]byte, stageHeadSize)
		if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
			return nil, err
		}
		if string(head[:len(stageMagic)]) == stageMagic && binary.BigEndian.Uint64(head[stageHeadSize-8:]) > size {
			return nil, ErrOtherStage
		}
		return nil, errStageMap
	}
	p := make([]byte, n)
	if k, err := f.ReadAt(p, 0); k < len(p) {
		if err == io.EOF {
			return nil, errStageMap
		}
		return nil, err
	}
	return decodeStageMap(p, key, root, size)
}

// saveStageMap replaces the durable bitmap: whatever happens on the way, the old
// one or the new one is there afterwards.
func saveStageMap(dir stageFS, key StageKey, enc []byte) error {
	temp := key.name(tempSuffix)
	if err := dir.remove(temp); err != nil {
		return err
	}
	f, err := dir.open(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(enc, 0)
	if err == nil {
		err = f.sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return dir.rename(temp, key.name(mapSuffix))
}

func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStageMap)
}

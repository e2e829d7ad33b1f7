package blob

import (
	"encoding/hex"
	"io/fs"
	"iter"
	"os"
	"strings"

	"github.com/cansync/cansync/can"
)

// StageKey says which blob a stage is for.
type StageKey struct {
	// Library is the id of the library that wants the blob.
	Library [32]byte
	// Digest is the SHA-256 of the content.
	Digest can.Digest
}

const (
	partSuffix = ".part"
	mapSuffix  = ".map"
	tempSuffix = ".new"
)

// name returns the name of one of the stage's files: nothing but hexadecimal
// digits and a suffix of ours, so that no peer chooses a name.
func (k StageKey) name(suffix string) string {
	return hex.EncodeToString(k.Library[:]) + "-" + k.Digest.String() + suffix
}

func parseStageName(name string) (k StageKey, ok bool) {
	stem := ""
	for _, suffix := range []string{partSuffix, mapSuffix, tempSuffix} {
		if s, found := strings.CutSuffix(name, suffix); found {
			stem = s
		}
	}
	lib, digest, found := strings.Cut(stem, "-")
	if !found {
		return k, false
	}
	l, err := can.ParseDigest(lib)
	if err != nil {
		return k, false
	}
	if k.Digest, err = can.ParseDigest(digest); err != nil {
		return k, false
	}
	k.Library = l
	return k, true
}

// Leftover is a stage found in a directory.
type Leftover struct {
	Key StageKey
	// Bytes is the length of its files.
	Bytes int64
}

// Leftovers lists the stages in a directory, in order of library and digest. Files
// that are not a stage's are passed over. The listing ends at the first error.
func Leftovers(dir *os.Root) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		entries, err := fs.ReadDir(dir.FS(), ".")
		if err != nil {
			yield(Leftover{}, err)
			return
		}
		// The names are sorted, so the files of one stage follow each other.
		var at Leftover
		have := false
		for _, e := range entries {
			key, ok := parseStageName(e.Name())
			if !ok || !e.Type().IsRegular() {
				continue
			}
			if have && key != at.Key {
				if !yield(at, nil) {
					return
				}
				at = Leftover{}
			}
			at.Key, have = key, true
			if info, err := e.Info(); err == nil { // else it is gone by now
				at.Bytes += info.Size()
			}
		}
		if have {
			yield(at, nil)
		}
	}
}

// RemoveStage removes the files of a stage that is not open. It succeeds when
// there are none.
func RemoveStage(dir *os.Root, key StageKey) error { return removeStage(rootFS{dir}, key) }

// removeStage removes the bitmap before the data that it speaks of.
func removeStage(fs stageFS, key StageKey) error {
	for _, suffix := range []string{mapSuffix, tempSuffix, partSuffix} {
		if err := fs.remove(key.name(suffix)); err != nil {
			return err
		}
	}
	return nil
}

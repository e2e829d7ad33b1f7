package service

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/cansync/cansync/can"
)

const (
	indexName  = ".can.db"
	lockName   = ".can.lock"
	trashDir   = ".trash"
	thumbDir   = ".thumbs"
	tempPrefix = ".tmp-"
	metaSuffix = ".json"

	// maxMetaFile bounds a metadata file; maxTimestamp is the end of year 9999.
	maxMetaFile  = 1 << 20
	maxTimestamp = 253402300799999
)

// files is the storage root. Every name it uses is made here from numbers and
// hashes; nothing a client sends becomes part of a path.
type files struct {
	root *os.Root
	dir  *os.File // the root itself, for flushes
}

// blobName is the file name of an asset's content.
func blobName(timestamp int64, hash can.Digest) string {
	return strconv.FormatInt(timestamp, 10) + "_" + hash.String()
}

// parseBlobName reads the name of a content file.
func parseBlobName(name string) (timestamp int64, hash can.Digest, ok bool) {
	ts, h, ok := strings.Cut(name, "_")
	if !ok {
		return 0, hash, false
	}
	timestamp, err := strconv.ParseInt(ts, 10, 64)
	if err != nil || timestamp < 0 || timestamp > maxTimestamp || strconv.FormatInt(timestamp, 10) != ts {
		return 0, hash, false
	}
	hash, err = can.ParseDigest(h)
	return timestamp, hash, err == nil
}

// place is the path of an asset's content below the root.
func place(a *asset) string { return placeAt(a, a.Trashed) }

func placeAt(a *asset, trashed bool) string {
	n := blobName(a.Timestamp, a.Hash)
	if trashed {
		return trashDir + "/" + n
	}
	return n
}

// temp creates a file for content on its way in.
func (f *files) temp() (*os.File, string, error) {
	var b [16]byte
	_, _ = rand.Read(b[:])
	name := tempPrefix + hex.EncodeToString(b[:])
	t, err := f.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	return t, name, err
}

// remove deletes a file that may be gone already.
func (f *files) remove(name string) error {
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// move renames a file; one that is not there is no error.
func (f *files) move(from, to string) error {
	if err := f.root.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeTemp writes data to a temporary file and returns its name.
func (f *files) writeTemp(data []byte, sync bool) (string, error) {
	t, name, err := f.temp()
	if err != nil {
		return "", err
	}
	_, err = t.Write(data)
	if err == nil && sync {
		err = t.Sync()
	}
	if cerr := t.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = f.remove(name)
		return "", err
	}
	return name, nil
}

// writeMeta writes the metadata file of a to a temporary file.
func (f *files) writeMeta(a *asset, sync bool) (string, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	return f.writeTemp(append(data, '\n'), sync)
}

// readMeta reads the metadata file at path. Its name, not its content, says
// which asset it belongs to.
func (f *files) readMeta(path string) (metadata, int64, error) {
	file, err := f.root.Open(path)
	if err != nil {
		return metadata{}, 0, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxMetaFile+1))
	if err != nil {
		return metadata{}, 0, err
	}
	if len(data) > maxMetaFile {
		return metadata{}, 0, fmt.Errorf("metadata file is larger than %d bytes", maxMetaFile)
	}
	return decodeMeta(data)
}

// decodeMeta reads a metadata file: what is said of the asset and its size.
func decodeMeta(data []byte) (metadata, int64, error) {
	var a asset
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&a); err != nil {
		return metadata{}, 0, fmt.Errorf("metadata file: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return metadata{}, 0, errors.New("metadata file: more than one JSON value")
	}
	if a.Size < 0 {
		return metadata{}, 0, errors.New("metadata file: negative size")
	}
	m, err := a.metadata.check()
	return m, a.Size, err
}

// flushDir makes the names in the root and in the trash durable.
func (f *files) flushDir() error {
	if err := f.dir.Sync(); err != nil {
		return err
	}
	t, err := f.root.Open(trashDir)
	if err != nil {
		return err
	}
	defer t.Close()
	return t.Sync()
}

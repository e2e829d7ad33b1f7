package service

import (
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"time"

	"github.com/cansync/cansync/can"
)

// slowestReader is the rate, in bytes per second, below which a download is cut
// off; it makes the deadline of an answer grow with its size.
const slowestReader = 16 << 10

var (
	errCorrupted = &requestError{status: 500, msg: "the asset's content is corrupted or gone; ingest it again to repair it"}
	errTrashed   = &requestError{status: 404, msg: "the asset is in the trash; ingest it again to restore it"}
)

// pathHash reads the hash of the route.
func pathHash(r *http.Request) (can.Digest, error) {
	h, err := can.ParseDigest(r.PathValue("hash"))
	if err != nil {
		return h, badRequest("the hash in the path is not 64 lower-case hexadecimal digits")
	}
	return h, nil
}

// asset finds the asset of the route, trashed or not.
func (s *Service) asset(r *http.Request) (asset, error) {
	h, err := pathHash(r)
	if err != nil {
		return asset{}, err
	}
	a, found, err := s.index.byHash(r.Context(), h)
	if err == nil && !found {
		err = errNoAsset
	}
	return a, err
}

func (s *Service) handleMeta(w http.ResponseWriter, r *http.Request) error {
	a, err := s.asset(r)
	if err != nil {
		return err
	}
	return answer(w, &a)
}

func (s *Service) handlePatch(w http.ResponseWriter, r *http.Request) error {
	h, err := pathHash(r)
	if err != nil {
		return err
	}
	body, err := s.readJSON(w, r, maxPatchBody)
	if err != nil {
		return err
	}
	up, err := parseUpdate(body)
	if err != nil {
		return err
	}
	a, err := s.patch(h, up)
	if err != nil {
		return err
	}
	return answer(w, &a)
}

func (s *Service) handleTrash(w http.ResponseWriter, r *http.Request) error {
	h, err := pathHash(r)
	if err != nil {
		return err
	}
	a, err := s.trash(h)
	if err != nil {
		return err
	}
	return answer(w, &a)
}

// open opens the content of an asset that is neither trashed nor corrupted.
func (s *Service) open(r *http.Request) (asset, *os.File, error) {
	for try := 0; ; try++ {
		a, err := s.asset(r)
		switch {
		case err != nil:
			return a, nil, err
		case a.Trashed:
			return a, nil, errTrashed
		case a.Corrupted:
			return a, nil, errCorrupted
		}
		f, err := s.files.root.Open(place(&a))
		if errors.Is(err, fs.ErrNotExist) {
			if try < 2 {
				continue // it may have moved since the index was read
			}
			if _, err := s.mark(&a, contentMissing); err != nil {
				return a, nil, err
			}
			s.log.Error("content of an asset is gone", "hash", a.Hash)
			return a, nil, errCorrupted
		}
		if err != nil {
			return a, nil, err
		}
		info, err := f.Stat()
		if err == nil && (!info.Mode().IsRegular() || info.Size() != a.Size) {
			s.log.Error("content of an asset has the wrong size", "hash", a.Hash, "size", info.Size(), "want", a.Size)
			_, err = s.mark(&a, contentWrong)
			if err == nil {
				err = errCorrupted
			}
		}
		if err != nil {
			_ = f.Close()
			return a, nil, err
		}
		return a, f, nil
	}
}

// handleAsset sends the bytes, whole or in ranges. An *os.File lets net/http
// have the kernel copy them.
func (s *Service) handleAsset(w http.ResponseWriter, r *http.Request) error {
	a, f, err := s.open(r)
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	if t, params, err := mime.ParseMediaType(a.MIMEType); err == nil {
		h.Set("Content-Type", mime.FormatMediaType(t, params))
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", defaultMIME)
	}
	// Content is foreign: should a browser show it, it may run nothing here.
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'")
	h.Set("ETag", `"`+a.Hash.String()+`"`)
	h.Set("Cache-Control", "private, no-cache") // it may be trashed any time
	if a.Filename != "" {
		if d := mime.FormatMediaType("inline", map[string]string{"filename": string(a.Filename)}); d != "" {
			h.Set("Content-Disposition", d)
		}
	}
	limit := answerDeadline + time.Duration(a.Size/slowestReader)*time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit))
	http.ServeContent(w, r, "", time.UnixMilli(a.Timestamp), f)
	return nil
}

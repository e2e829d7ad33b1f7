package service

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"github.com/cansync/cansync/can"
	"golang.org/x/time/rate"
)

// contentState is what a look at an asset's content found.
type contentState uint8

const (
	contentRight contentState = iota
	contentWrong
	contentMissing
)

const (
	// verifyRate bounds what the background verification reads per second.
	verifyRate = 64 << 20
	// verifyDelay is the least time between start and the first verification.
	verifyDelay   = time.Minute
	stateVerified = "verified_at"
)

var errBusy = &requestError{status: http.StatusConflict, msg: "a verification or rebuild is running"}

// checkContent hashes an asset's content. Either hash rule will do, so a root
// may change its rule.
func (s *Service) checkContent(ctx context.Context, a *asset, limit *rate.Limiter) (contentState, error) {
	f, err := s.files.root.Open(place(a))
	if errors.Is(err, fs.ErrNotExist) {
		return contentMissing, nil
	}
	if err != nil {
		return contentWrong, err
	}
	defer f.Close()
	sum := sha256.New()
	buf := make([]byte, chunkSize)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return contentWrong, err
		}
		n, err := f.Read(buf)
		_, _ = sum.Write(buf[:n])
		size += int64(n)
		if err == io.EOF { //nolint:errorlint // files return it bare
			break
		}
		if err != nil { // a disk that can't read it
			s.log.Error("reading content of an asset", "hash", a.Hash, "err", err)
			return contentWrong, nil
		}
		if limit != nil {
			if err := limit.WaitN(ctx, n); err != nil {
				return contentWrong, err
			}
		}
	}
	if size == a.Size && (can.Digest(sum.Sum(nil)) == a.Hash || sumTimestamp(sum, a.Timestamp) == a.Hash) {
		return contentRight, nil
	}
	return contentWrong, nil
}

// verifyReport is the answer of POST /admin/verify.
type verifyReport struct {
	Checked   int64 `json:"checked"`
	Bytes     int64 `json:"bytes"`
	Corrupted int64 `json:"corrupted"` // all that are corrupted or gone now
	Missing   int64 `json:"missing"`   // those of them whose content is gone
	News      int64 `json:"newly_corrupted"`
	Recovered int64 `json:"recovered"` // were marked and are right again
}

// verify hashes the content of all assets, trashed ones included, and records
// what it finds.
func (s *Service) verify(ctx context.Context, limit *rate.Limiter) (verifyReport, error) {
	var rep verifyReport
	if !s.verifying.TryLock() {
		return rep, errBusy
	}
	defer s.verifying.Unlock()
	for last := int64(0); ; {
		list, err := s.index.after(ctx, last, 256)
		if err != nil {
			return rep, err
		}
		if len(list) == 0 {
			break
		}
		for i := range list {
			a := &list[i]
			last = a.id
			state, err := s.checkContent(ctx, a, limit)
			if err != nil {
				return rep, err
			}
			if state == contentMissing {
				// Moved by a trash or restore since the page was read?
				now, found, err := s.index.byHash(ctx, a.Hash)
				if err != nil {
					return rep, err
				}
				if !found || place(&now) != place(a) {
					continue
				}
			}
			news, err := s.mark(a, state)
			if err != nil {
				return rep, err
			}
			rep.count(a, state, news)
			if news && state != contentRight {
				s.log.Error("content of an asset does not match its hash", "hash", a.Hash, "gone", state == contentMissing)
			}
		}
	}
	at := strconv.FormatInt(s.cfg.Now().UnixMilli(), 10)
	return rep, s.writer.do(func(tx *txn) error { return tx.setState(stateVerified, at) }, nil)
}

func (r *verifyReport) count(a *asset, state contentState, news bool) {
	r.Checked++
	switch state {
	case contentRight:
		r.Bytes += a.Size
		if news {
			r.Recovered++
		}
		return
	case contentMissing:
		r.Missing++
	case contentWrong:
	}
	r.Corrupted++
	if news {
		r.News++
	}
}

// verifyLoop verifies at the configured interval, counted from the last
// verification that came to its end, across restarts.
func (s *Service) verifyLoop() {
	ctx := s.background
	for {
		t := time.NewTimer(s.nextVerify(ctx))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		rep, err := s.verify(ctx, rate.NewLimiter(verifyRate, chunkSize))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("verification stopped", "err", err)
		default:
			s.log.Info("verification done", "checked", rep.Checked, "bytes", rep.Bytes, "corrupted", rep.Corrupted, "missing", rep.Missing)
		}
	}
}

// nextVerify is the time until the next verification is due.
func (s *Service) nextVerify(ctx context.Context) time.Duration {
	v, err := s.index.state(ctx, s.index.read, stateVerified)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("reading the time of the last verification", "err", err)
	}
	ms, _ := strconv.ParseInt(v, 10, 64)
	if ms == 0 { // a new index: its files were hashed when they came in
		return max(s.cfg.VerifyInterval, verifyDelay)
	}
	return max(time.UnixMilli(ms).Add(s.cfg.VerifyInterval).Sub(s.cfg.Now()), min(verifyDelay, s.cfg.VerifyInterval))
}

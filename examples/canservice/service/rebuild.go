package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/cansync/cansync/can"
)

// rebuildReport is the answer of POST /admin/rebuild.
type rebuildReport struct {
	Assets  int64 `json:"assets"`
	Trashed int64 `json:"trashed"`
	// Errors counts the assets whose metadata could not be read; they are kept
	// with empty metadata.
	Errors int64 `json:"errors"`
}

// rebuild makes the index anew from the files, in one transaction: readers see
// the old index until it is whole, and writes wait. Names and metadata files are
// trusted; a verification reads the contents.
func (s *Service) rebuild() (rebuildReport, error) {
	var rep rebuildReport
	if !s.verifying.TryLock() {
		return rep, errBusy
	}
	defer s.verifying.Unlock()
	var tooMany error
	err := s.writer.doAlone(func(tx *txn) error {
		corrupted, err := tx.corrupted()
		if err != nil {
			return err
		}
		for _, stmt := range []string{"DELETE FROM asset_tags", "DELETE FROM assets"} {
			if _, err := tx.w.conn.ExecContext(s.ctx, stmt); err != nil {
				return err
			}
		}
		return s.files.walk(func(e entry) error {
			if e.meta {
				return nil
			}
			if err := s.ctx.Err(); err != nil {
				return err
			}
			a, merr := s.files.load(e)
			a.Corrupted = a.Corrupted || corrupted[a.Hash]
			fresh, err := tx.insert(&a)
			if err != nil || !fresh { // a second copy of what is there
				return err
			}
			rep.Assets++
			if a.Trashed {
				rep.Trashed++
			}
			if merr == nil {
				return nil
			}
			s.log.Warn("metadata of an asset can't be read", "file", e.path(), "err", merr)
			if rep.Errors++; rep.Errors > int64(s.cfg.RebuildErrorThreshold) {
				tooMany = &requestError{status: 500, msg: fmt.Sprintf(
					"the metadata of more than %d assets can't be read (rebuild_error_threshold); the index stays as it was, and the log names the files", s.cfg.RebuildErrorThreshold)}
				return tooMany
			}
			return nil
		}, func(string) error { return nil })
	})
	if tooMany != nil {
		return rep, tooMany
	}
	if err != nil {
		return rep, err
	}
	return rep, s.recount()
}

// corrupted lists the assets marked as corrupted, which the files don't tell.
func (t *txn) corrupted() (map[can.Digest]bool, error) {
	rows, err := t.w.conn.QueryContext(context.Background(), "SELECT hash FROM assets WHERE corrupted <> 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[can.Digest]bool)
	for rows.Next() {
		var h []byte
		if err := rows.Scan(&h); err != nil {
			return nil, err
		}
		if len(h) != len(can.Digest{}) {
			return nil, errors.New("a row holds a hash of the wrong length")
		}
		out[can.Digest(h)] = true
	}
	return out, rows.Err()
}

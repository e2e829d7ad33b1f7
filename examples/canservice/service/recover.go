package service

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/cansync/cansync/can"
)

// seqGap is added to the change number after an unclean end: a power cut may
// have taken back the last commits, and cursors that stand for them may be out.
const seqGap = 1 << 20

// known is what the index says of an asset, and what was found of its files. A
// million of them take about 100 MB while the root is being opened.
type known struct {
	id               int64
	timestamp        int64
	trashed          bool
	content, hasMeta bool
}

// recovery brings index and files together after Open.
type recovery struct {
	s  *Service
	tx *txn

	clean     bool
	flushed   int64 // change number up to which files are durable
	flushedAt time.Time

	rows                                      map[can.Digest]known
	strays                                    []entry      // content that the index doesn't expect there
	metas                                     []entry      // metadata that the index doesn't expect there
	recent                                    []entry      // metadata written after the last flush
	fresh                                     []can.Digest // rows changed after the last flush
	adopted, moved, missing, leftovers, wrong int
}

// recover repairs what an interrupted run, or somebody's hand, left.
func (s *Service) recover() error {
	r := &recovery{s: s}
	if err := s.writer.doAlone(r.run); err != nil {
		return fmt.Errorf("canservice: bringing index and files together: %w", err)
	}
	if r.adopted+r.moved+r.missing+r.leftovers+r.wrong > 0 || !r.clean {
		s.log.Warn("the last run did not end in order, or files were changed by hand", "clean", r.clean, "taken_in", r.adopted, "moved", r.moved,
			"content_gone", r.missing, "content_wrong", r.wrong, "leftovers_removed", r.leftovers)
	}
	return s.recount()
}

// recount reads the number of live assets from the index.
func (s *Service) recount() error {
	var n int64
	err := s.index.read.QueryRowContext(s.ctx, "SELECT COUNT(*) FROM assets WHERE trashed = 0").Scan(&n)
	s.live.Store(n)
	s.pages.changed()
	return err
}

func (r *recovery) run(tx *txn) error {
	r.tx = tx
	if err := r.readState(); err != nil {
		return err
	}
	if err := r.readRows(); err != nil {
		return err
	}
	if err := r.s.files.walk(r.found, func(path string) error {
		r.leftovers++
		return r.s.files.remove(path)
	}); err != nil {
		return err
	}
	for _, step := range []func() error{r.placeStrays, r.dropMetas, r.compareMetas, r.checkRows} {
		if err := step(); err != nil {
			return err
		}
	}
	return tx.setState(stateClean, "false")
}

func (r *recovery) readState() error {
	v := make(map[string]string, 3)
	for _, k := range []string{stateClean, stateFlushed, stateFlushedAt} {
		var err error
		if v[k], err = r.s.index.state(r.s.ctx, r.tx.w.conn, k); err != nil {
			return err
		}
	}
	// A new index has no state; it trusts the files, and verification comes later.
	r.clean = v[stateClean] != "false"
	r.flushed, _ = strconv.ParseInt(v[stateFlushed], 10, 64)
	at, _ := strconv.ParseInt(v[stateFlushedAt], 10, 64)
	r.flushedAt = time.UnixMilli(at).Add(-2 * flushInterval)
	if !r.clean {
		r.tx.w.seq += seqGap
	}
	return nil
}

func (r *recovery) readRows() error {
	rows, err := r.tx.w.conn.QueryContext(r.s.ctx, "SELECT id, hash, timestamp, trashed, seq FROM assets")
	if err != nil {
		return err
	}
	defer rows.Close()
	r.rows = make(map[can.Digest]known)
	for rows.Next() {
		var k known
		var hash []byte
		var seq int64
		if err := rows.Scan(&k.id, &hash, &k.timestamp, &k.trashed, &seq); err != nil {
			return err
		}
		if len(hash) != len(can.Digest{}) {
			return fmt.Errorf("row %d holds a hash of %d bytes", k.id, len(hash))
		}
		r.rows[can.Digest(hash)] = k
		if !r.clean && seq > r.flushed {
			r.fresh = append(r.fresh, can.Digest(hash))
		}
	}
	return rows.Err()
}

// found sorts one file: expected, or for later.
func (r *recovery) found(e entry) error {
	k, ok := r.rows[e.hash]
	expected := ok && k.timestamp == e.timestamp && k.trashed == e.trashed
	switch {
	case expected && e.meta:
		k.hasMeta = true
		r.rows[e.hash] = k
		if !r.clean {
			if info, err := e.info.Info(); err == nil && info.ModTime().After(r.flushedAt) {
				r.recent = append(r.recent, e)
			}
		}
	case expected:
		k.content = true
		r.rows[e.hash] = k
	case e.meta:
		r.metas = append(r.metas, e)
	default:
		r.strays = append(r.strays, e)
	}
	return nil
}

// placeStrays takes content in that has no row, lets rows follow content that
// moved, and removes a second copy of content that is in its place.
func (r *recovery) placeStrays() error {
	for _, e := range r.strays {
		k, ok := r.rows[e.hash]
		if ok && k.content {
			r.leftovers++
			if err := r.s.files.remove(e.path()); err != nil {
				return err
			}
			continue
		}
		a, merr := r.s.files.load(e)
		if merr != nil && !errors.Is(merr, fs.ErrNotExist) {
			r.s.log.Warn("metadata of an asset can't be read", "file", e.path(), "err", merr)
		}
		if !r.clean && !a.Corrupted {
			if err := r.checkContent(&a); err != nil {
				return err
			}
		}
		next := known{timestamp: a.Timestamp, trashed: a.Trashed, content: true, hasMeta: merr == nil}
		if ok {
			old, found, err := r.tx.byHash(e.hash)
			if err != nil || !found {
				return errors.Join(err, errNoRow(found))
			}
			if merr != nil {
				a.metadata = old.metadata
			}
			if err := r.tx.update(&old, &a); err != nil {
				return err
			}
			r.moved++
		} else {
			if _, err := r.tx.insert(&a); err != nil {
				return err
			}
			r.adopted++
		}
		next.id = a.id
		r.rows[e.hash] = next
	}
	return nil
}

func errNoRow(found bool) error {
	if found {
		return nil
	}
	return errors.New("a row of the index vanished inside the transaction")
}

// checkContent hashes content that may not have reached the disk whole.
func (r *recovery) checkContent(a *asset) error {
	info, err := r.s.files.root.Lstat(place(a))
	if err != nil || !info.ModTime().After(r.flushedAt) {
		return err
	}
	state, err := r.s.checkContent(r.s.ctx, a, nil)
	if err != nil {
		return err
	}
	if a.Corrupted = state != contentRight; a.Corrupted {
		r.wrong++
	}
	return nil
}

// dropMetas removes metadata files whose content is elsewhere or gone.
func (r *recovery) dropMetas() error {
	for _, e := range r.metas {
		if k, ok := r.rows[e.hash]; ok && k.content && k.timestamp == e.timestamp && k.trashed == e.trashed {
			continue
		}
		r.leftovers++
		if err := r.s.files.remove(e.path()); err != nil {
			return err
		}
	}
	return nil
}

// compareMetas lets rows follow metadata files whose change the index lost.
func (r *recovery) compareMetas() error {
	for _, e := range r.recent {
		a, found, err := r.tx.byHash(e.hash)
		if err != nil || !found {
			return errors.Join(err, errNoRow(found))
		}
		m, _, err := r.s.files.readMeta(e.path())
		switch {
		case err != nil: // torn by a power cut: the row knows better
			if err := r.s.replaceMeta(&a); err != nil {
				return err
			}
		case !m.equal(a.metadata):
			old := a
			a.metadata = m
			if err := r.tx.update(&old, &a); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRows marks assets without content, writes metadata files that are gone,
// and reads content again that was written after the last flush.
func (r *recovery) checkRows() error {
	for hash, k := range r.rows {
		if k.content && k.hasMeta {
			continue
		}
		a, found, err := r.tx.byHash(hash)
		if err != nil || !found {
			return errors.Join(err, errNoRow(found))
		}
		switch {
		case !k.content && !a.Corrupted:
			old := a
			a.Corrupted = true
			if err := r.tx.update(&old, &a); err != nil {
				return err
			}
			r.missing++
		case k.content && !k.hasMeta:
			if err := r.s.replaceMeta(&a); err != nil {
				return err
			}
		}
	}
	if r.clean {
		return nil
	}
	for _, hash := range r.fresh {
		a, found, err := r.tx.byHash(hash)
		if err != nil || !found {
			return errors.Join(err, errNoRow(found))
		}
		if a.Corrupted {
			continue
		}
		old := a
		if err := r.checkContent(&a); err != nil {
			return err
		}
		if a.Corrupted {
			if err := r.tx.update(&old, &a); err != nil {
				return err
			}
		}
	}
	return nil
}

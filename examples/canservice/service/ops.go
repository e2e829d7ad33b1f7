package service

import (
	"errors"
	"hash"

	"github.com/cansync/cansync/can"
)

var errNoAsset = &requestError{status: 404, msg: "no such asset"}

// staged is content that was received whole and waits for its commit.
type staged struct {
	temp string    // content
	meta string    // metadata file for a; empty once published
	sum  hash.Hash // state after the content, for hashing with another timestamp
	a    asset
	// chosen says that the client gave the timestamp.
	chosen bool
}

// discard removes what was not published.
func (s *Service) discard(in *staged) {
	for _, n := range []string{in.temp, in.meta} {
		if n == "" {
			continue
		}
		if err := s.files.remove(n); err != nil {
			s.log.Warn("removing a temporary file", "err", err)
		}
	}
	in.temp, in.meta = "", ""
}

// publish gives staged content its name. The content comes last: a metadata file
// without content is a leftover, content is an asset.
func (s *Service) publish(in *staged, a *asset) error {
	if in.meta == "" {
		m, err := s.files.writeMeta(a, s.cfg.Durable)
		if err != nil {
			return err
		}
		in.meta = m
	}
	to := place(a)
	if err := s.files.root.Rename(in.meta, to+metaSuffix); err != nil {
		return err
	}
	in.meta = ""
	if err := s.files.root.Rename(in.temp, to); err != nil {
		return err
	}
	in.temp = ""
	s.flusher.wrote(to, to+metaSuffix)
	return nil
}

// commitIngest makes an asset of staged content, or finds the one that is there.
func (s *Service) commitIngest(in *staged) (out asset, err error) {
	defer s.discard(in)
	var (
		ferr error
		undo func()
	)
	run := func(tx *txn) error {
		for {
			a := in.a
			fresh, err := tx.insert(&a)
			if err != nil {
				return err
			}
			if fresh {
				undo = func() { s.unpublish(&a) }
				if ferr = s.publish(in, &a); ferr != nil {
					return tx.remove(&a)
				}
				out = a
				tx.onCommit(func() { s.changed(nil, &a) })
				return nil
			}
			old, found, err := tx.byHash(a.Hash)
			if err != nil {
				return err
			}
			if !found {
				return errors.New("row vanished inside the transaction")
			}
			if s.cfg.HashRule == HashTimestamp && !in.chosen && old.Timestamp == a.Timestamp {
				// The same bytes within one millisecond: two assets under this rule.
				in.a.Timestamp++
				in.a.Hash = sumTimestamp(in.sum, in.a.Timestamp)
				if ferr = s.files.remove(in.meta); ferr != nil {
					return nil
				}
				in.meta = ""
				continue
			}
			undo, ferr, err = s.again(tx, in, &old, &out)
			return err
		}
	}
	if err := s.writer.do(run, func() {
		if undo != nil {
			undo()
		}
	}); err != nil {
		return asset{}, err
	}
	return out, ferr
}

// again ingests content whose hash is known. A live asset stays as it is; one
// whose content is gone or corrupted gets it back; a trashed one is replaced as
// if it were new, with the metadata and timestamp of this ingest.
func (s *Service) again(tx *txn, in *staged, old, out *asset) (undo func(), ferr, err error) {
	_, serr := s.files.root.Lstat(place(old))
	switch {
	case old.Trashed:
		a := in.a
		if ferr := s.publish(in, &a); ferr != nil {
			return nil, ferr, nil
		}
		was := *old
		err := tx.update(&was, &a)
		*out = a
		tx.onCommit(func() {
			s.changed(&was, &a)
			s.dropFiles(&was)
		})
		return func() { s.unpublish(&a) }, nil, err
	case old.Corrupted || serr != nil:
		a := *old
		a.Corrupted, a.Size = false, in.a.Size
		if ferr := s.files.remove(in.meta); ferr != nil {
			return nil, ferr, nil
		}
		in.meta = "" // the metadata stays that of the asset
		if ferr := s.publish(in, &a); ferr != nil {
			return nil, ferr, nil
		}
		was := *old
		err := tx.update(&was, &a)
		*out = a
		tx.onCommit(func() { s.changed(&was, &a) })
		return nil, nil, err // right content needs no undo
	default:
		*out = *old
		return nil, nil, nil
	}
}

// unpublish takes the files of an asset away whose commit failed.
func (s *Service) unpublish(a *asset) {
	if err := s.dropFilesErr(a); err != nil {
		s.log.Warn("removing files of a failed ingest", "hash", a.Hash, "err", err)
	}
}

// dropFiles removes the files of an asset that another place has replaced.
func (s *Service) dropFiles(a *asset) {
	if err := s.dropFilesErr(a); err != nil {
		s.log.Warn("removing replaced files", "hash", a.Hash, "err", err)
	}
}

func (s *Service) dropFilesErr(a *asset) error {
	return errors.Join(s.files.remove(place(a)), s.files.remove(place(a)+metaSuffix))
}

// trash moves an asset to the trash; one that is there already stays.
func (s *Service) trash(hash can.Digest) (out asset, err error) {
	var ferr error
	var undo func()
	run := func(tx *txn) error {
		old, found, err := tx.byHash(hash)
		if err != nil {
			return err
		}
		if !found {
			ferr = errNoAsset
			return nil
		}
		if old.Trashed {
			out = old
			return nil
		}
		a := old
		a.Trashed = true
		from, to := place(&old), place(&a)
		undo = func() {
			if err := errors.Join(s.files.move(to, from), s.files.move(to+metaSuffix, from+metaSuffix)); err != nil {
				s.log.Warn("moving files back from the trash", "hash", a.Hash, "err", err)
			}
		}
		if ferr = errors.Join(s.files.move(from+metaSuffix, to+metaSuffix), s.files.move(from, to)); ferr != nil {
			undo()
			undo = nil
			return nil
		}
		s.flusher.wrote(to, to+metaSuffix)
		err = tx.update(&old, &a)
		out = a
		tx.onCommit(func() { s.changed(&old, &a) })
		return err
	}
	if err := s.writer.do(run, func() {
		if undo != nil {
			undo()
		}
	}); err != nil {
		return asset{}, err
	}
	return out, ferr
}

// patch changes the metadata of an asset.
func (s *Service) patch(hash can.Digest, up update) (out asset, err error) {
	var ferr error
	var undo func()
	run := func(tx *txn) error {
		old, found, err := tx.byHash(hash)
		if err != nil {
			return err
		}
		if !found {
			ferr = errNoAsset
			return nil
		}
		a := old
		if a.metadata, ferr = up.apply(old.metadata); ferr != nil {
			return nil
		}
		if a.metadata.equal(old.metadata) {
			out = old
			return nil
		}
		undo = func() {
			if err := s.replaceMeta(&old); err != nil {
				s.log.Warn("restoring a metadata file", "hash", old.Hash, "err", err)
			}
		}
		if ferr = s.replaceMeta(&a); ferr != nil {
			undo = nil
			return nil
		}
		err = tx.update(&old, &a)
		out = a
		tx.onCommit(func() { s.changed(&old, &a) })
		return err
	}
	if err := s.writer.do(run, func() {
		if undo != nil {
			undo()
		}
	}); err != nil {
		return asset{}, err
	}
	return out, ferr
}

// replaceMeta writes the metadata file of a anew, atomically.
func (s *Service) replaceMeta(a *asset) error {
	t, err := s.files.writeMeta(a, s.cfg.Durable)
	if err != nil {
		return err
	}
	to := place(a) + metaSuffix
	if err := s.files.root.Rename(t, to); err != nil {
		_ = s.files.remove(t)
		return err
	}
	s.flusher.wrote(to)
	return nil
}

// mark records what a look at an asset's content found, unless the asset has
// moved or been healed since seen was read. It reports whether that was news.
func (s *Service) mark(seen *asset, found contentState) (news bool, err error) {
	corrupted := found != contentRight
	if corrupted == seen.Corrupted {
		return false, nil
	}
	err = s.writer.do(func(tx *txn) error {
		old, ok, err := tx.byHash(seen.Hash)
		if err != nil || !ok || place(&old) != place(seen) || old.Corrupted != seen.Corrupted {
			return err
		}
		if found == contentMissing {
			if _, err := s.files.root.Lstat(place(&old)); err == nil {
				return nil // an ingest brought it back meanwhile
			}
		}
		a := old
		a.Corrupted = corrupted
		if err := tx.update(&old, &a); err != nil {
			return err
		}
		news = true
		tx.onCommit(func() { s.changed(&old, &a) })
		return nil
	}, nil)
	return news, err
}

package badger

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"

	badgerdb "github.com/dgraph-io/badger/v4"
	ds "github.com/ipfs/go-datastore"
	badger4 "github.com/ipfs/go-ds-badger4"

	"github.com/cansync/cansync/store"
)

// mapError makes an error of badger one of package store.
func mapError(err error) error {
	if err == nil {
		return nil
	}
	for _, m := range []struct{ from, to error }{
		{badgerdb.ErrKeyNotFound, ds.ErrNotFound},
		{ds.ErrNotFound, ds.ErrNotFound},
		{badgerdb.ErrConflict, store.ErrConflict},
		{badgerdb.ErrTxnTooBig, store.ErrTooLarge},
		{badgerdb.ErrReadOnlyTxn, store.ErrReadOnly},
		{badgerdb.ErrDiscardedTxn, store.ErrDone},
		{badgerdb.ErrDBClosed, store.ErrClosed},
		{badgerdb.ErrBlockedWrites, store.ErrClosed},
		{badger4.ErrClosed, store.ErrClosed},
	} {
		if errors.Is(err, m.from) {
			return m.to
		}
	}
	// Badger turns most errors of the system into text.
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT),
		strings.Contains(text, syscall.ENOSPC.Error()), strings.Contains(text, syscall.EDQUOT.Error()):
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	case strings.Contains(text, "Cannot acquire directory lock"):
		return fmt.Errorf("%w: %w", store.ErrLocked, err)
	case strings.Contains(strings.ToLower(text), "checksum"), strings.Contains(text, "manifest has"):
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return fmt.Errorf("store: %w", err)
}

// logBridge hands badger's log lines to slog. Its infos are debugging output to
// anybody else.
type logBridge struct {
	log     *slog.Logger
	ignored atomic.Bool // badger left out a damaged table
}

var _ badgerdb.Logger = (*logBridge)(nil)

func line(format string, v []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, v...))
}

func (l *logBridge) Errorf(format string, v ...any) {
	s := line(format, v)
	if strings.HasPrefix(s, "Ignoring table") {
		l.ignored.Store(true)
	}
	l.log.Error("badger", "said", s)
}

func (l *logBridge) Warningf(format string, v ...any) { l.log.Warn("badger", "said", line(format, v)) }
func (l *logBridge) Infof(format string, v ...any)    { l.log.Debug("badger", "said", line(format, v)) }
func (l *logBridge) Debugf(format string, v ...any)   { l.log.Debug("badger", "said", line(format, v)) }

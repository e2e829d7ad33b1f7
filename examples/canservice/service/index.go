package service

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/cansync/cansync/can"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// schemaVersion stands in the index as user_version.
const schemaVersion = 1

// A rowid table with a unique index on the hash loads and scans several times
// faster than one keyed by the hash. assets_time serves listings and is partial,
// so that it counts and skips live assets alone.
const schema = `
CREATE TABLE assets (
	id             INTEGER PRIMARY KEY,
	seq            INTEGER NOT NULL,
	hash           BLOB NOT NULL UNIQUE,
	timestamp      INTEGER NOT NULL,
	size           INTEGER NOT NULL,
	mime_type      TEXT NOT NULL,
	application    TEXT NOT NULL,
	user           TEXT NOT NULL,
	description    TEXT NOT NULL,
	tags           TEXT NOT NULL,
	human_filename TEXT NOT NULL,
	human_path     TEXT NOT NULL,
	trashed        INTEGER NOT NULL,
	corrupted      INTEGER NOT NULL
);
CREATE UNIQUE INDEX assets_seq ON assets (seq);
CREATE INDEX assets_time ON assets (timestamp, id) WHERE trashed = 0;
CREATE TABLE asset_tags (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID;
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`

const columns = "id, seq, hash, timestamp, size, mime_type, application, user, description, tags, human_filename, human_path, trashed, corrupted"

// index is the SQLite side of the service: one connection that only the writer
// uses, and a few for reading, which see the last commit.
type index struct {
	write *sql.DB
	read  *sql.DB
	// epoch tells this index from others, so that a cursor of another is noticed.
	epoch string
}

// errBrokenIndex says that the index file can't be used and should be built anew.
var errBrokenIndex = errors.New("canservice: index can't be read")

func openIndex(ctx context.Context, root string, durable bool) (*index, error) {
	sync := "NORMAL"
	if durable {
		sync = "FULL"
	}
	dsn := func(extra string) string {
		q := "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(" + sync + ")&_pragma=cache_size(-16000)" + extra
		return (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(root, indexName)), RawQuery: q}).String()
	}
	w, err := sql.Open("sqlite", dsn("&_pragma=wal_autocheckpoint(4000)"))
	if err != nil {
		return nil, err
	}
	w.SetMaxOpenConns(1)
	x := &index{write: w}
	if err := x.init(ctx); err != nil {
		_ = w.Close()
		return nil, err
	}
	x.read, err = sql.Open("sqlite", dsn("&_pragma=query_only(1)"))
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	x.read.SetMaxOpenConns(4)
	x.read.SetMaxIdleConns(4)
	return x, nil
}

func (x *index) init(ctx context.Context) error {
	var version int
	if err := x.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("%w: %w", errBrokenIndex, err)
	}
	switch version {
	case 0:
		tx, err := x.write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // no effect after Commit
		var b [8]byte
		_, _ = rand.Read(b[:])
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return fmt.Errorf("%w: %w", errBrokenIndex, err)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO state (key, value) VALUES ('epoch', ?)", hex.EncodeToString(b[:])); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	case schemaVersion:
	default:
		return fmt.Errorf("canservice: the index has format %d and this program knows %d: use a newer program, or remove %s to build the index anew from the files", version, schemaVersion, indexName)
	}
	epoch, err := x.state(ctx, x.write, "epoch")
	if err != nil {
		return fmt.Errorf("%w: %w", errBrokenIndex, err)
	}
	x.epoch = epoch
	return nil
}

// querier is a database or a connection of one.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// state reads a value of the index's own; an absent one is empty.
func (x *index) state(ctx context.Context, q querier, key string) (string, error) {
	var v string
	err := q.QueryRowContext(ctx, "SELECT value FROM state WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return v, err
}

func (x *index) close() error {
	err := x.read.Close()
	return errors.Join(err, x.write.Close())
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

func scanAsset(row scanner) (asset, error) {
	var (
		a    asset
		hash []byte
		tags string
	)
	err := row.Scan(&a.id, &a.seq, &hash, &a.Timestamp, &a.Size, &a.MIMEType, &a.Application, &a.User, &a.Description, &tags, &a.Filename, &a.Path, &a.Trashed, &a.Corrupted)
	if err != nil {
		return a, err
	}
	if len(hash) != len(a.Hash) {
		return a, fmt.Errorf("canservice: row %d holds a hash of %d bytes; rebuild the index", a.id, len(hash))
	}
	a.Hash = can.Digest(hash)
	a.Tags = append([]string{}, splitTags(tags)...)
	return a, nil
}

// byHash finds one asset, trashed ones included.
func (x *index) byHash(ctx context.Context, hash can.Digest) (asset, bool, error) {
	a, err := scanAsset(x.read.QueryRowContext(ctx, "SELECT "+columns+" FROM assets WHERE hash = ?", hash[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	}
	return a, err == nil, err
}

// query collects the assets that a statement selects.
func (x *index) query(ctx context.Context, query string, args ...any) ([]asset, error) {
	rows, err := x.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []asset{}
	for rows.Next() {
		a, err := scanAsset(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// after lists assets, trashed ones included, in the order of their ids.
func (x *index) after(ctx context.Context, id int64, limit int) ([]asset, error) {
	return x.query(ctx, "SELECT "+columns+" FROM assets WHERE id > ? ORDER BY id LIMIT ?", id, limit)
}

// changes lists assets changed after seq, oldest change first.
func (x *index) changes(ctx context.Context, seq int64, limit int) ([]asset, error) {
	return x.query(ctx, "SELECT "+columns+" FROM assets WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)
}

// joinTags is the form in which tags are kept in a row.
func joinTags(tags []string) string { return strings.Join(tags, ",") }

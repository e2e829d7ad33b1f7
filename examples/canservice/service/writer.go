package service

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/cansync/cansync/can"
)

// maxBatch is how many changes share one transaction at most.
const maxBatch = 512

// writer applies changes one after the other on the one writing connection.
// While a commit runs, further changes queue up and share the next one, so the
// cost of a commit is spread over parallel requests without any of them waiting
// for a timer.
type writer struct {
	ops  chan *change
	done sync.WaitGroup

	conn  *sql.Conn
	stmts statements
	// flush makes the files of a batch durable before its commit; nil when the
	// service doesn't promise that.
	flush func() error
	seq   int64 // newest change number given out; used by the writer alone
}

// change is one unit of work for the writer.
type change struct {
	// run works inside the transaction. An error of it fails the whole batch, so
	// it is kept for an index that can't be written; what is wrong with the change
	// itself is told by other means.
	run func(tx *txn) error
	// undo takes back what run did outside the index; it is called when the
	// transaction fails.
	undo func()
	// alone keeps the change out of a transaction with others.
	alone bool
	err   chan error
}

// txn is the transaction of a batch.
type txn struct {
	w     *writer
	after []func()
}

// onCommit has fn called by the writer after a successful commit.
func (t *txn) onCommit(fn func()) { t.after = append(t.after, fn) }

type statements struct {
	insert, update, byHash, dropTag, setState *sql.Stmt
}

func startWriter(ctx context.Context, x *index, flush func() error) (*writer, error) {
	conn, err := x.write.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{ops: make(chan *change, maxBatch), conn: conn, flush: flush}
	for _, s := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&w.stmts.insert, "INSERT INTO assets (seq, hash, timestamp, size, mime_type, application, user, description, tags, human_filename, human_path, trashed, corrupted) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (hash) DO NOTHING"},
		{&w.stmts.update, "UPDATE assets SET seq=?, hash=?, timestamp=?, size=?, mime_type=?, application=?, user=?, description=?, tags=?, human_filename=?, human_path=?, trashed=?, corrupted=? WHERE id=?"},
		{&w.stmts.byHash, "SELECT " + columns + " FROM assets WHERE hash = ?"},
		{&w.stmts.dropTag, "DELETE FROM asset_tags WHERE tag = ? AND id = ?"},
		{&w.stmts.setState, "INSERT INTO state (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"},
	} {
		if *s.to, err = conn.PrepareContext(ctx, s.query); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	// The number given out last is kept apart from the rows, because a rebuild
	// may drop the row that holds the greatest.
	var inRows sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT MAX(seq) FROM assets").Scan(&inRows); err != nil {
		_ = conn.Close()
		return nil, err
	}
	kept, err := x.state(ctx, conn, "seq")
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	n, _ := strconv.ParseInt(kept, 10, 64) // empty in a new index
	w.seq = max(inRows.Int64, n)
	w.done.Go(w.loop)
	return w, nil
}

// do has the change applied and waits until it is committed. It doesn't end with
// a context: once queued the change happens, and soon.
func (w *writer) do(run func(tx *txn) error, undo func()) error {
	return w.submit(&change{run: run, undo: undo})
}

// doAlone is do in a transaction of its own, which run may fail at will.
func (w *writer) doAlone(run func(tx *txn) error) error {
	return w.submit(&change{run: run, alone: true})
}

func (w *writer) submit(c *change) error {
	c.err = make(chan error, 1)
	w.ops <- c
	return <-c.err
}

// stop ends the writer after all queued changes. No do may follow or run.
func (w *writer) stop() error {
	close(w.ops)
	w.done.Wait()
	return w.conn.Close()
}

func (w *writer) loop() {
	batch := make([]*change, 0, maxBatch)
	var next *change // came up while a batch was filled, and runs alone
	for {
		c := next
		next = nil
		if c == nil {
			var ok bool
			if c, ok = <-w.ops; !ok {
				return
			}
		}
		batch = append(batch[:0], c)
	fill:
		for !c.alone && len(batch) < maxBatch {
			select {
			case more, ok := <-w.ops:
				switch {
				case !ok:
					break fill
				case more.alone:
					next = more
					break fill
				}
				batch = append(batch, more)
			default:
				break fill
			}
		}
		err := w.apply(batch)
		for _, c := range batch {
			c.err <- err
		}
		clear(batch)
	}
}

func (w *writer) apply(batch []*change) (err error) {
	ctx := context.Background() // a commit is not interrupted
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("canservice: index: %w", err)
	}
	tx := &txn{w: w}
	ran := 0
	defer func() {
		if err == nil {
			return
		}
		_, rerr := w.conn.ExecContext(ctx, "ROLLBACK")
		for _, c := range batch[:ran] {
			if c.undo != nil {
				c.undo()
			}
		}
		err = fmt.Errorf("canservice: index: %w", errors.Join(err, rerr))
	}()
	for _, c := range batch {
		ran++
		if err := c.run(tx); err != nil {
			return err
		}
	}
	if w.flush != nil {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if _, err := w.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return err
	}
	for _, fn := range tx.after {
		fn()
	}
	return nil
}

// insert adds a, giving it its id and change number; false says that its hash is
// there already.
func (t *txn) insert(a *asset) (bool, error) {
	t.w.seq++
	a.seq = t.w.seq
	r, err := t.w.stmts.insert.Exec(a.seq, a.Hash[:], a.Timestamp, a.Size, a.MIMEType, string(a.Application), string(a.User), string(a.Description), joinTags(a.Tags), string(a.Filename), string(a.Path), a.Trashed, a.Corrupted)
	if err != nil {
		return false, err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if a.id, err = r.LastInsertId(); err != nil {
		return false, err
	}
	return true, t.addTags(a)
}

// update replaces the row of old by a, giving it a new change number.
func (t *txn) update(old, a *asset) error {
	t.w.seq++
	a.id, a.seq = old.id, t.w.seq
	_, err := t.w.stmts.update.Exec(a.seq, a.Hash[:], a.Timestamp, a.Size, a.MIMEType, string(a.Application), string(a.User), string(a.Description), joinTags(a.Tags), string(a.Filename), string(a.Path), a.Trashed, a.Corrupted, a.id)
	if err != nil {
		return err
	}
	for _, tag := range old.Tags {
		if _, err := t.w.stmts.dropTag.Exec(tag, a.id); err != nil {
			return err
		}
	}
	return t.addTags(a)
}

// remove deletes a row that was inserted in this transaction.
func (t *txn) remove(a *asset) error {
	for _, tag := range a.Tags {
		if _, err := t.w.stmts.dropTag.Exec(tag, a.id); err != nil {
			return err
		}
	}
	_, err := t.w.conn.ExecContext(context.Background(), "DELETE FROM assets WHERE id = ?", a.id)
	return err
}

// addTags takes one statement for all tags, because the driver prepares each
// execution anew.
func (t *txn) addTags(a *asset) error {
	if len(a.Tags) == 0 {
		return nil
	}
	args := make([]any, 0, 2*len(a.Tags))
	for _, tag := range a.Tags {
		args = append(args, tag, a.id)
	}
	_, err := t.w.conn.ExecContext(context.Background(), "INSERT OR IGNORE INTO asset_tags (tag, id) VALUES (?, ?)"+strings.Repeat(", (?, ?)", len(a.Tags)-1), args...)
	return err
}

// byHash finds one asset as it stands inside the transaction.
func (t *txn) byHash(hash can.Digest) (asset, bool, error) {
	a, err := scanAsset(t.w.stmts.byHash.QueryRow(hash[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	}
	return a, err == nil, err
}

func (t *txn) setState(key, value string) error {
	_, err := t.w.stmts.setState.Exec(key, value)
	return err
}

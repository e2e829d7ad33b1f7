package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
)

// tell runs the whole story; every step fails with a reason.
func tell(ctx context.Context, o options, s *screen, logs io.Writer, dir string) (err error) {
	began := time.Now()
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	a, err := openSite(ctx, "A", filepath.Join(dir, "A"), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	b, err := openSite(ctx, "B", filepath.Join(dir, "B"), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	s.printf("Two machines, in one process and on the loopback interface:\n")
	rows := [][]string{{"", "CAN SERVICE", "NODE", "DATA"}}
	for _, m := range []*site{a, b} {
		rows = append(rows, []string{m.name, m.url, m.node.PeerID().Short(), m.dir})
	}
	s.table(rows)

	onA, onB, err := share(ctx, s, a, b)
	if err != nil {
		return err
	}
	to := &route{screen: s, from: a, to: b, lib: onB}
	sent, err := to.album(ctx, filepath.Join(dir, "pictures"), o)
	if err != nil {
		return err
	}
	back := &route{screen: s, from: b, to: a, lib: onA}
	answer, err := makePicture(filepath.Join(dir, "pictures"), "ben", o.assets, 0)
	if err != nil {
		return err
	}
	s.printf("\nThe other way: B uploads a picture.\n")
	if err := back.send(ctx, []picture{answer}); err != nil {
		return err
	}
	if err := to.edit(ctx, sent[0]); err != nil {
		return err
	}
	return closing(ctx, s, began, onA, onB, b)
}

// share makes a library on a and lets b join.
func share(ctx context.Context, s *screen, a, b *site) (onA, onB *cansync.Library, err error) {
	onA, err = a.node.CreateLibrary(ctx, "shared-images", cansync.Filter{MIMEPrefix: "image/"})
	if err != nil {
		return nil, nil, fmt.Errorf("create a library: %w", err)
	}
	ticket, err := onA.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("make a ticket: %w", err)
	}
	s.printf("\nA shares its images (mime_prefix %q) as library %q and makes a ticket:\n  %v\n", onA.Filter().MIMEPrefix, onA.Name(), ticket)
	begin := time.Now()
	onB, err = b.node.Join(ctx, ticket)
	if err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	// Until a member admitted the joiner its membership allows nothing.
	if err := onB.Wait(ctx); err != nil {
		return nil, nil, fmt.Errorf("join: %w", errors.Join(err, reason(onB)))
	}
	s.printf("B joined with it in %s; it may %s.\n", timeText(time.Since(begin)), onB.Access())
	return onA, onB, nil
}

// reason says why a library makes no progress, as far as its node knows. It has
// to be asked after a context has ended.
func reason(lib *cansync.Library) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := lib.Status(ctx)
	if err != nil {
		return err
	}
	return errors.Join(st.Refused, fmt.Errorf("the library is %s, with %d assets pending, %d failed %v and %d peers", st.State, st.Pending, st.Failed, st.Causes, st.Peers))
}

// route is one direction in which assets travel.
type route struct {
	*screen
	from, to *site
	lib      *cansync.Library // as the receiver has it
}

// album makes pictures and sends them, and beside them a note which is not to
// travel.
func (r *route) album(ctx context.Context, dir string, o options) ([]picture, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var album []picture
	for i := range o.assets {
		large := int64(0)
		if i == o.assets-1 {
			large = o.size
		}
		p, err := makePicture(dir, "ann", i, large)
		if err != nil {
			return nil, err
		}
		album = append(album, p)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("make pictures: %w", err)
		}
	}
	note := filepath.Join(dir, "note.txt")
	if err := os.WriteFile(note, []byte("This note is not for B.\n"), 0o600); err != nil {
		return nil, err
	}
	if _, err := r.from.upload(ctx, note, can.Metadata{MIMEType: "text/plain", Filename: "note.txt", User: "ann"}); err != nil {
		return nil, err
	}
	r.printf("\nA uploads %d pictures, and a note that the filter leaves out.\n", len(album))
	return album, r.send(ctx, album)
}

// send uploads pictures on one side and shows them arrive on the other.
func (r *route) send(ctx context.Context, album []picture) error {
	arrivals := watch(ctx, r.to.node, r.lib)
	defer arrivals.stop()
	look, err := r.gauges(ctx, album)
	if err != nil {
		return err
	}
	end := r.follow(look)
	defer func() { end() }()

	answered := make(map[can.Digest]time.Time, len(album))
	for _, p := range album {
		hash, err := r.from.upload(ctx, p.path, p.Metadata)
		if err != nil {
			return err
		}
		if hash != p.digest.String() {
			return fmt.Errorf("%s was ingested as %s and has the SHA-256 %s", p.Filename, hash, p.digest)
		}
		answered[p.digest] = time.Now()
	}
	at, err := arrivals.wait(ctx, answered)
	if err != nil {
		return err
	}
	end()
	end = func() {}

	rows := [][]string{{"FILE", "SIZE", "SHA-256", "HASH", "METADATA", "ARRIVED AFTER"}}
	for _, p := range album {
		if err := r.compare(ctx, p); err != nil {
			return err
		}
		rows = append(rows, []string{p.Filename, bytesText(p.size), p.digest.String()[:16] + "…", "equal", "equal", timeText(max(0, at[p.digest].Sub(answered[p.digest])))})
	}
	r.table(rows)
	return nil
}

// gauges returns what tells how far an album is: all of it, and each large picture
// on its way.
func (r *route) gauges(ctx context.Context, album []picture) (func() []gauge, error) {
	before, err := r.lib.Progress(ctx)
	if err != nil {
		return nil, err
	}
	all := gauge{label: fmt.Sprintf("%s → %s", r.from.name, r.to.name)}
	names := make(map[can.Digest]string)
	for _, p := range album {
		all.total += p.size
		names[p.digest] = p.Filename
	}
	return func() []gauge {
		p, err := r.lib.Progress(ctx)
		if err != nil {
			return nil
		}
		all.done, all.rate = p.BytesDone-before.BytesDone, p.Rate
		out := []gauge{all}
		for _, t := range p.Transfers {
			out = append(out, gauge{names[t.Digest], t.Done, t.Total, t.Rate})
		}
		return out
	}, nil
}

// compare reads an asset from both services: content and all metadata must be the
// same.
func (r *route) compare(ctx context.Context, p picture) error {
	hash := p.digest.String()
	got, err := r.to.digest(ctx, hash)
	if err != nil {
		return fmt.Errorf("read %s from %s: %w", p.Filename, r.to.name, err)
	}
	if got != p.digest {
		return fmt.Errorf("%s arrived with the SHA-256 %s instead of %s", p.Filename, got, p.digest)
	}
	here, err := r.from.user.Meta(ctx, hash)
	if err != nil {
		return err
	}
	there, err := r.to.user.Meta(ctx, hash)
	if err != nil {
		return err
	}
	if !equal(here, there) {
		return fmt.Errorf("the metadata of %s differ: %+v on %s, %+v on %s", p.Filename, here, r.from.name, there, r.to.name)
	}
	return nil
}

func equal(a, b can.Asset) bool {
	return a.Handle == b.Handle && a.Timestamp == b.Timestamp && a.Size == b.Size && a.MIMEType == b.MIMEType &&
		a.Application == b.Application && a.User == b.User && a.Description == b.Description &&
		a.Filename == b.Filename && a.Path == b.Path && slices.Equal(a.Tags, b.Tags)
}

// edit changes metadata on one side and sees the change on the other.
func (r *route) edit(ctx context.Context, p picture) error {
	text, tags := "Rings, seen from above", append(slices.Clone(p.Tags), "favourite")
	arrivals := watch(ctx, r.to.node, r.lib)
	defer arrivals.stop()
	if _, err := r.from.user.UpdateMeta(ctx, p.digest.String(), can.Update{Description: &text, Tags: &tags}); err != nil {
		return fmt.Errorf("edit %s: %w", p.Filename, err)
	}
	begin := time.Now()
	for {
		a, err := r.to.user.Meta(ctx, p.digest.String())
		if err != nil {
			return fmt.Errorf("read %s from %s: %w", p.Filename, r.to.name, err)
		}
		if a.Description == text && slices.Equal(a.Tags, tags) {
			break
		}
		if err := arrivals.next(ctx); err != nil {
			return fmt.Errorf("the edit of %s did not reach %s: %w", p.Filename, r.to.name, errors.Join(err, arrivals.reason()))
		}
	}
	r.printf("\nAn edit on %s reached %s in %s: %s is now %q, tagged %v.\n", r.from.name, r.to.name, timeText(time.Since(begin)), p.Filename, text, tags)
	return r.compare(ctx, p)
}

// closing sees both sides through to the end and sums up.
func closing(ctx context.Context, s *screen, began time.Time, onA, onB *cansync.Library, b *site) error {
	for _, l := range []*cansync.Library{onA, onB} {
		if err := l.Wait(ctx); err != nil {
			return errors.Join(err, reason(l))
		}
	}
	page, err := b.user.List(ctx, can.ListOptions{})
	if err != nil {
		return err
	}
	for _, a := range page.Assets {
		if a.MIMEType == "text/plain" {
			return errors.New("the note, which the filter leaves out, reached B")
		}
	}
	st, err := onB.Status(ctx)
	if err != nil {
		return err
	}
	s.printf("\nDone: %d assets with %s are the same on both sides, the note stayed at home, in %s.\n", st.Assets, bytesText(st.Bytes), timeText(time.Since(began)))
	return nil
}

package cantest

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cansync/cansync/can"
	"github.com/stretchr/testify/require"
)

// unsupported reports whether the service lacks a call, in which case the client
// must say so each time.
func (c *check) unsupported(err error, again func() error) bool {
	c.Helper()
	if !errors.Is(err, can.ErrUnsupported) {
		return false
	}
	require.ErrorIs(c, again(), can.ErrUnsupported)
	return true
}

func (c *check) meta() {
	m, ok := c.client.(can.MetaReader)
	if !ok {
		return
	}
	a := c.ingest(pattern(20, 99), can.Metadata{Filename: "meta.txt", MIMEType: "text/plain"})
	got, err := m.Meta(c.ctx, a.Handle)
	if c.unsupported(err, func() error { _, err := m.Meta(c.ctx, a.Handle); return err }) {
		return
	}
	require.NoError(c, err)
	require.Equal(c, a.Handle, got.Handle)
	require.Equal(c, a.Timestamp, got.Timestamp)
	if got.Size >= 0 {
		require.EqualValues(c, 99, got.Size)
	}
	_, err = m.Meta(c.ctx, strings.Repeat("0", 64))
	require.ErrorIs(c, err, can.ErrNotFound)
}

func (c *check) update() {
	u, ok := c.client.(can.MetaUpdater)
	if !ok {
		return
	}
	a := c.ingest(pattern(21, 10), can.Metadata{Filename: "a.txt", MIMEType: "text/plain", User: "u", Tags: []string{"old"}})
	desc, tags := "new text", []string{"one", "two"}
	got, err := u.UpdateMeta(c.ctx, a.Handle, can.Update{Description: &desc, Tags: &tags})
	if c.unsupported(err, func() error {
		_, err := u.UpdateMeta(c.ctx, a.Handle, can.Update{Description: &desc})
		return err
	}) {
		return
	}
	require.NoError(c, err)
	require.Equal(c, a.Handle, got.Handle)
	if c.suite.Strict {
		require.Equal(c, desc, got.Description)
		require.Equal(c, tags, got.Tags)
		require.Equal(c, "a.txt", got.Filename, "a nil field was changed")
		require.Equal(c, "u", got.User, "a nil field was changed")
	}
	none, empty := []string{}, ""
	got, err = u.UpdateMeta(c.ctx, a.Handle, can.Update{Description: &empty, Tags: &none})
	require.NoError(c, err)
	require.Empty(c, got.Tags)
	require.Empty(c, got.Description)
	_, err = u.UpdateMeta(c.ctx, strings.Repeat("0", 64), can.Update{Description: &desc})
	require.ErrorIs(c, err, can.ErrNotFound)
}

func (c *check) trash() {
	tr, ok := c.client.(can.Trasher)
	if !ok {
		return
	}
	a := c.ingest(pattern(22, 10), can.Metadata{})
	b := c.ingest(pattern(23, 10), can.Metadata{})
	err := tr.Trash(c.ctx, a.Handle)
	if c.unsupported(err, func() error { return tr.Trash(c.ctx, a.Handle) }) {
		require.True(c, c.listed(a.Handle))
		return
	}
	require.NoError(c, err)
	require.NoError(c, tr.Trash(c.ctx, a.Handle), "trashing twice")
	require.False(c, c.listed(a.Handle), "a trashed asset is listed")
	require.True(c, c.listed(b.Handle))
	if m, ok := c.client.(can.MetaReader); ok {
		if got, err := m.Meta(c.ctx, a.Handle); err == nil {
			require.True(c, got.Trashed)
		}
	}
	require.ErrorIs(c, tr.Trash(c.ctx, strings.Repeat("0", 64)), can.ErrNotFound)
}

func (c *check) changes() {
	l, ok := c.client.(can.ChangeLister)
	if !ok {
		return
	}
	first, err := l.Changes(c.ctx, "", 0)
	if c.unsupported(err, func() error { _, err := l.Changes(c.ctx, "", 0); return err }) {
		return
	}
	require.NoError(c, err)
	// follow reads all changes since a cursor, page by page.
	follow := func(cursor string) (handles []string, next string) {
		for range 1000 {
			p, err := l.Changes(c.ctx, cursor, 3)
			require.NoError(c, err)
			for _, a := range p.Assets {
				handles = append(handles, a.Handle)
			}
			if cursor = p.Next; !p.More {
				return handles, cursor
			}
		}
		require.Fail(c, "changes without end")
		return nil, ""
	}
	_, cursor := follow(first.Next)
	var want []string
	for i := range 10 {
		want = append(want, c.ingest(pattern(uint64(600+i), 10), can.Metadata{}).Handle)
	}
	got, next := follow(cursor)
	require.ElementsMatch(c, want, got)
	again, _ := follow(cursor)
	require.ElementsMatch(c, want, again, "a cursor is good more than once")
	got, next = follow(next)
	require.Empty(c, got)
	if tr, ok := c.client.(can.Trasher); ok && tr.Trash(c.ctx, want[4]) == nil {
		got, next = follow(next)
		require.Contains(c, got, want[4], "a trashed asset is no change")
	}
	if u, ok := c.client.(can.MetaUpdater); ok {
		text := "changed"
		if _, err := u.UpdateMeta(c.ctx, want[2], can.Update{Description: &text}); err == nil {
			got, _ = follow(next)
			require.Contains(c, got, want[2], "changed metadata is no change")
		}
	}
	all, _ := follow("")
	require.True(c, slices.Contains(all, want[0]))
	_, err = l.Changes(c.ctx, "no such cursor", 0)
	require.ErrorIs(c, err, can.ErrBadRequest)
}

func (c *check) watch() {
	w, ok := c.client.(can.Watcher)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	events := make(chan can.Event, 64)
	ended := make(chan error, 1)
	go func() {
		ended <- w.Watch(ctx, func(ev can.Event) {
			select {
			case events <- ev:
			default:
			}
		})
	}()
	select {
	case err := <-ended:
		require.ErrorIs(c, err, can.ErrUnsupported)
		return
	case ev := <-events:
		require.Equal(c, can.Event{}, ev, "the first event says that the watch is in place")
	}
	a := c.ingest(pattern(30, 10), can.Metadata{})
	select {
	case ev := <-events:
		if ev.Asset.Handle != "" {
			require.Equal(c, a.Handle, ev.Asset.Handle)
		}
	case err := <-ended:
		require.NoError(c, err)
	}
	cancel()
	require.ErrorIs(c, <-ended, context.Canceled)
}

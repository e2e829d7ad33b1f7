package transfer

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
)

// What a member leaves out of its own view it still serves, as long as the library
// holds it.
func TestAViewDoesNotEndServing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, lib := pair(t, nodeOptions{}, nodeOptions{})
		data := random(t, 1, 1000)
		w := a.announce(lib, a.hold(data))
		theirs, ok := b.library(lib.ID())
		require.True(t, ok)
		knows(t, theirs, w)
		none := filter.Filter{MIMEPrefix: "image/"}
		require.NoError(t, lib.SetOwnView(t.Context(), none))
		e, err := lib.Entry(t.Context(), w.Asset)
		require.NoError(t, err)
		require.False(t, e.Member)
		got, err := b.client.Small(t.Context(), w)
		require.NoError(t, err)
		require.Equal(t, data, got)

		require.NoError(t, lib.Describe(t.Context(), control.Description{Name: "photos", Filter: none}))
		require.NoError(t, lib.SetOwnView(t.Context(), filter.Filter{}))
		_, err = b.client.Small(t.Context(), w)
		require.Error(t, err, "nobody holds it any more")
	})
}

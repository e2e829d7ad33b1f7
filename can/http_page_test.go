package can_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// TestPagesThatAreTooLongAreAskedForInParts: assets that say so much of themselves
// that a page of them is longer than the client reads can all be listed.
func TestPagesThatAreTooLongAreAskedForInParts(t *testing.T) {
	for _, limit := range []int{0, 500} {
		bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
			const wordy, terse = 130, 300
			for n := range wordy {
				s.Add(fmt.Append(nil, n), can.Metadata{Description: strings.Repeat("d", 100<<10)})
			}
			for n := range terse {
				s.Add(fmt.Append(nil, wordy+n), can.Metadata{})
			}
			list := func() (calls int) {
				seen := make(map[string]bool)
				for calls = 1; ; calls++ {
					p, err := c.List(t.Context(), can.ListOptions{Offset: len(seen), Limit: limit, Order: can.Oldest})
					require.NoError(t, err)
					if len(p.Assets) == 0 {
						break
					}
					for _, a := range p.Assets {
						require.False(t, seen[a.Handle])
						seen[a.Handle] = true
					}
				}
				require.Len(t, seen, wordy+terse)
				return calls
			}
			require.Less(t, list(), 20)
			require.Less(t, list(), 20, "what was learned is not forgotten, nor kept for ever")
			cursor, got := "", 0
			for {
				p, err := c.Changes(t.Context(), cursor, limit)
				require.NoError(t, err)
				got += len(p.Assets)
				if cursor = p.Next; !p.More {
					break
				}
			}
			require.Equal(t, wordy+terse, got)
		})
	}
}

// TestAnAssetThatIsTooLongIsAnError: where a single asset does not fit, nothing is
// asked for without end.
func TestAnAssetThatIsTooLongIsAnError(t *testing.T) {
	bubble(t, cantest.Options{}, can.HTTPOptions{}, func(t *testing.T, s *cantest.Service, c *can.HTTPClient) {
		a := s.Add([]byte("a"), can.Metadata{Description: strings.Repeat("d", 9<<20)})
		_, err := c.List(t.Context(), can.ListOptions{Limit: 100})
		require.ErrorIs(t, err, can.ErrInvalid)
		before := s.Calls()[cantest.RouteList]
		_, err = c.List(t.Context(), can.ListOptions{Limit: 100})
		require.ErrorIs(t, err, can.ErrInvalid)
		require.Equal(t, before+1, s.Calls()[cantest.RouteList])
		require.True(t, s.Delete(a.Handle))
		for range 100 { // pages become longer again
			_, err = c.List(t.Context(), can.ListOptions{Limit: 100})
			require.NoError(t, err)
		}
		for n := range 100 {
			s.Add(fmt.Append(nil, n), can.Metadata{})
		}
		p, err := c.List(t.Context(), can.ListOptions{Limit: 100})
		require.NoError(t, err)
		require.Len(t, p.Assets, 100)
	})
}

package announce

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

func TestDecide(t *testing.T) {
	live := replica.Entry{Live: record.Record{Header: record.Header{Kind: record.Announce}}, Body: record.AssetBody{User: "u"}, Member: true}
	outside, unknown, dead := live, replica.Entry{}, replica.Entry{Live: record.Record{Header: record.Header{Kind: record.Tombstone}}}
	outside.Member = false
	have := replica.Local{State: replica.Have, Applied: live.ID()}
	mine, other := live.Body, record.AssetBody{User: "other", Timestamp: 5}
	for name, c := range map[string]struct {
		s    situation
		want verdict
	}{
		"new":                       {situation{kind: noteFresh, match: true, may: true, speaks: true}, announce},
		"new, second handle":        {situation{kind: noteFresh, match: true, may: true}, announce},
		"new, outside":              {situation{kind: noteFresh, may: true, speaks: true}, nothing},
		"new, reader":               {situation{kind: noteFresh, match: true, speaks: true}, nothing},
		"edited into the filter":    {situation{kind: noteEdit, entry: unknown, match: true, may: true, speaks: true}, announce},
		"live, same":                {situation{kind: noteFresh, entry: live, body: mine, match: true, may: true, speaks: true}, agree},
		"live, other":               {situation{kind: noteFresh, entry: live, body: other, match: true, may: true, speaks: true}, apply},
		"live, agreed before":       {situation{kind: noteOffer, entry: live, local: have, body: other, match: true, may: true, speaks: true}, nothing},
		"live, reader":              {situation{kind: noteFresh, entry: live, body: mine, speaks: true}, agree},
		"live, second handle":       {situation{kind: noteFresh, entry: live, body: other, match: true, may: true}, nothing},
		"edit":                      {situation{kind: noteEdit, entry: live, local: have, body: other, match: true, may: true, speaks: true}, edit},
		"edit, out of the filter":   {situation{kind: noteEdit, entry: live, local: have, body: other, may: true, speaks: true}, edit},
		"edit, outside":             {situation{kind: noteEdit, entry: outside, body: other, may: true, speaks: true}, nothing},
		"edit, back in":             {situation{kind: noteEdit, entry: outside, body: other, match: true, may: true, speaks: true}, edit},
		"edit, reader":              {situation{kind: noteEdit, entry: live, local: have, body: other, match: true, speaks: true}, nothing},
		"edit to what is live":      {situation{kind: noteEdit, entry: live, body: mine, match: true, may: true, speaks: true}, agree},
		"edit of a second handle":   {situation{kind: noteEdit, entry: live, body: other, match: true, may: true}, nothing},
		"offer, outside":            {situation{kind: noteOffer, entry: outside, body: other, match: true, may: true, speaks: true}, nothing},
		"tombstone, old copy":       {situation{kind: noteOffer, entry: dead, match: true, may: true, speaks: true, later: true}, nothing},
		"tombstone, found late":     {situation{kind: noteFresh, entry: dead, match: true, may: true, speaks: true}, nothing},
		"tombstone, new handle":     {situation{kind: noteFresh, entry: dead, match: true, may: true, later: true}, readd},
		"tombstone, edit":           {situation{kind: noteEdit, entry: dead, match: true, may: true, speaks: true}, readd},
		"tombstone, edit elsewhere": {situation{kind: noteEdit, entry: dead, may: true, speaks: true}, nothing},
		"tombstone, untrashed":      {situation{kind: noteBack, entry: dead, match: true, may: true, speaks: true, later: true}, readd},
		"tombstone, readable again": {situation{kind: noteBack, entry: dead, match: true, may: true, speaks: true}, nothing},
		"tombstone, reader":         {situation{kind: noteEdit, entry: dead, match: true, speaks: true}, nothing},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, decide(c.s)) })
	}
}

func TestTooMany(t *testing.T) {
	require.False(t, tooMany(1, 1), "a single asset is no accident")
	require.False(t, tooMany(5, 10))
	require.True(t, tooMany(6, 10))
	require.True(t, tooMany(2, 3))
	require.False(t, tooMany(1000, 1e6))
	require.True(t, tooMany(1001, 1e6))
}

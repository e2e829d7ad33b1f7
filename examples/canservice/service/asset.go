package service

import (
	"encoding/json"
	"slices"

	"github.com/cansync/cansync/can"
)

// optional is a text that is null in JSON when it is empty.
type optional string

func (o optional) MarshalJSON() ([]byte, error) {
	if o == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(o))
}

// metadata is what a user may say about an asset.
type metadata struct {
	MIMEType    string   `json:"mime_type"`
	Application optional `json:"application"`
	User        optional `json:"user"`
	Description optional `json:"description"`
	Tags        []string `json:"tags"`
	Filename    optional `json:"human_filename"`
	Path        optional `json:"human_path"`
}

func (m metadata) equal(o metadata) bool {
	return m.MIMEType == o.MIMEType && m.Application == o.Application && m.User == o.User && m.Description == o.Description &&
		m.Filename == o.Filename && m.Path == o.Path && slices.Equal(m.Tags, o.Tags)
}

// asset is one asset as it stands in answers and in metadata files.
type asset struct {
	id, seq int64

	Hash      can.Digest `json:"hash"`
	Timestamp int64      `json:"timestamp"`
	Size      int64      `json:"size"`
	metadata
	Trashed   bool `json:"is_trashed"`
	Corrupted bool `json:"is_corrupted"`
}

// listable reports whether the asset belongs into listings.
func (a *asset) listable() bool { return !a.Trashed }

package cantest

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/cansync/cansync/can"
)

// wireAsset is an asset in JSON as the contract has it.
type wireAsset struct {
	Hash        string   `json:"hash"`
	Timestamp   int64    `json:"timestamp"`
	MIMEType    string   `json:"mime_type"`
	Size        int64    `json:"size"`
	Application *string  `json:"application"`
	User        *string  `json:"user"`
	Description *string  `json:"description"`
	Tags        []string `json:"tags"`
	Filename    *string  `json:"human_filename"`
	Path        *string  `json:"human_path"`
	Trashed     bool     `json:"is_trashed,omitempty"`
	Corrupted   bool     `json:"is_corrupted,omitempty"`
}

func toWire(a can.Asset) wireAsset {
	opt := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	w := wireAsset{
		Hash: a.Handle, Timestamp: a.Timestamp, MIMEType: a.MIMEType, Size: a.Size,
		Application: opt(a.Application), User: opt(a.User), Description: opt(a.Description),
		Tags: a.Tags, Filename: opt(a.Filename), Path: opt(a.Path),
		Trashed: a.Trashed, Corrupted: a.Corrupted,
	}
	if w.Tags == nil {
		w.Tags = []string{}
	}
	return w
}

type wirePage struct {
	Items  []wireAsset `json:"items"`
	Total  *int        `json:"total,omitempty"`
	Limit  int         `json:"limit"`
	Offset int         `json:"offset"`
	Next   string      `json:"next_cursor,omitempty"`
	More   *bool       `json:"more,omitempty"`
}

func toWires(as []can.Asset) []wireAsset {
	out := make([]wireAsset, len(as))
	for i, a := range as {
		out[i] = toWire(a)
	}
	return out
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"status":"error","error":"encoding"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func success(w http.ResponseWriter, data any) {
	writeJSON(w, http.StatusOK, map[string]any{"status": "success", "data": data})
}

func refuse(w http.ResponseWriter, status int, msg string) {
	writeJSON(w, status, map[string]any{"status": "error", "error": msg})
}

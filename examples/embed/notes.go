package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxNote is the longest note that is taken, in bytes.
const maxNote = 4 << 20

// note is one note. Nobody changes it once it is kept.
type note struct {
	ID    string    `json:"id"`
	Title string    `json:"title"`
	By    string    `json:"by"`
	Kind  string    `json:"kind"` // a MIME type
	Tags  []string  `json:"tags"`
	Time  time.Time `json:"time"`
	Size  int       `json:"size"`

	// Fields that notes have no use for and that other services may fill. A host
	// that drops them loses nothing in the library, only at its own place.
	App, About, Path string `json:"-"`

	text []byte
}

// notebook is the service that exists already: it keeps notes in memory and
// serves them over HTTP. It knows nothing of cansync; see client.go for the part
// that connects the two. It is safe for concurrent use.
type notebook struct {
	mu      sync.Mutex
	notes   []note // in order of Time, then of arrival
	byID    map[string]note
	changed chan struct{} // closed and replaced at each change
}

func newNotebook() *notebook {
	return &notebook{byID: make(map[string]note), changed: make(chan struct{})}
}

// add keeps a note and gives it an id. Ids count up: the same text added twice is
// two notes, here and in many services that cansync may meet.
func (b *notebook) add(n note) note {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.ID = strconv.Itoa(len(b.notes) + 1)
	n.Size = len(n.text)
	at, _ := slices.BinarySearchFunc(b.notes, n.Time, func(o note, t time.Time) int {
		if o.Time.After(t) {
			return 1
		}
		return -1
	})
	b.notes = slices.Insert(b.notes, at, n)
	b.byID[n.ID] = n
	close(b.changed)
	b.changed = make(chan struct{})
	return n
}

func (b *notebook) get(id string) (note, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.byID[id]
	return n, ok
}

// page returns at most limit notes after the first offset ones, and how many there
// are in all.
func (b *notebook) page(offset, limit int, newestFirst bool) ([]note, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	total := len(b.notes)
	offset = min(max(offset, 0), total)
	end := min(offset+limit, total)
	if !newestFirst {
		return slices.Clone(b.notes[offset:end]), total
	}
	out := slices.Clone(b.notes[total-end : total-offset])
	slices.Reverse(out)
	return out, total
}

// next returns a channel that is closed at the next change.
func (b *notebook) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// ServeHTTP serves POST /notes?title=&by=&tags=a,b, GET /notes and GET /notes/{id}.
func (b *notebook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, one := strings.CutPrefix(r.URL.Path, "/notes/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/notes":
		b.post(w, r)
	case r.Method == http.MethodGet && r.URL.Path == "/notes":
		notes, _ := b.page(0, 1000, true)
		reply(w, notes)
	case r.Method == http.MethodGet && one:
		n, ok := b.get(id)
		if !ok {
			http.Error(w, "no such note", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", n.Kind)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(n.text)
	default:
		http.Error(w, "POST /notes, GET /notes or GET /notes/{id}", http.StatusNotFound)
	}
}

func (b *notebook) post(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNote))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, "a note has at most "+strconv.Itoa(maxNote)+" bytes", http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "the text did not arrive", http.StatusBadRequest)
		return
	}
	q := r.URL.Query()
	n := note{Title: q.Get("title"), By: q.Get("by"), Kind: "text/plain", App: "notes", Time: time.Now(), text: text}
	if tags := q.Get("tags"); tags != "" {
		n.Tags = strings.Split(tags, ",")
	}
	reply(w, b.add(n))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}

package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// tally counts the requests that a handler answers, by their method and route. It is
// safe for concurrent use.
type tally struct {
	next http.Handler

	mu   sync.Mutex
	seen map[string]int
}

func newTally(next http.Handler) *tally { return &tally{next: next, seen: map[string]int{}} }

func (t *tally) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	route := routeOf(q)
	t.mu.Lock()
	t.seen[route]++
	t.mu.Unlock()
	t.next.ServeHTTP(w, q)
}

// String lists the counts, the largest first.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	routes := slices.SortedFunc(maps.Keys(t.seen), func(a, b string) int {
		if d := t.seen[b] - t.seen[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var s []string
	for _, r := range routes {
		s = append(s, fmt.Sprintf("%s %s", group(t.seen[r]), r))
	}
	return strings.Join(s, ", ")
}

// routeOf is a request's method and path with a star in place of a digest.
func routeOf(q *http.Request) string {
	parts := strings.Split(q.URL.Path, "/")
	for i, p := range parts {
		if len(p) == 64 {
			parts[i] = "*"
		}
	}
	return q.Method + " " + strings.Join(parts, "/")
}

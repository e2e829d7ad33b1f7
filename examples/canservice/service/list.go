package service

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	// defaultLimit and maxLimit are the page sizes when none is asked for and when
	// too much is asked for.
	defaultLimit = 100
	maxLimit     = 1000
)

// listing is the data of an answer with assets.
type listing struct {
	Items []asset `json:"items"`
	// Total counts the assets outside the trash that the request selects; it is
	// absent where changes are listed.
	Total  *int64 `json:"total,omitempty"`
	Limit  int    `json:"limit"`
	Offset int64  `json:"offset"`
	// NextCursor goes into changed_since next time, and More says that there is
	// something to get with it now.
	NextCursor string `json:"next_cursor,omitempty"`
	More       *bool  `json:"more,omitempty"`
}

type pageRequest struct {
	limit  int
	offset int64
	asc    bool
}

func parsePage(q url.Values) (pageRequest, error) {
	p := pageRequest{limit: defaultLimit}
	if v := q.Get("limit"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			return p, badRequest("limit %.40q is not a number above 0", v)
		}
		p.limit = int(min(n, maxLimit))
	}
	if v := q.Get("offset"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return p, badRequest("offset %.40q is not a number of assets", v)
		}
		p.offset = n
	}
	switch v := q.Get("order"); v {
	case "", "desc":
	case "asc":
		p.asc = true
	default:
		return p, badRequest("order %.40q is neither asc nor desc", v)
	}
	return p, nil
}

func parseQuery(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query string is malformed")
	}
	return q, nil
}

func (s *Service) handleList(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	p, err := parsePage(q)
	if err != nil {
		return err
	}
	if q.Has("changed_since") {
		return s.listChanges(w, r, q.Get("changed_since"), p)
	}
	layout := s.pages.now()
	items, err := s.listPage(r.Context(), p)
	if err != nil {
		return err
	}
	if n := len(items); n > 0 {
		last := &items[n-1]
		s.pages.keep(layout, pageAt{asc: p.asc, offset: p.offset + int64(n)}, pageEnd{timestamp: last.Timestamp, id: last.id})
	}
	total := s.live.Load()
	return answer(w, listing{Items: items, Total: &total, Limit: p.limit, Offset: p.offset})
}

// listPage selects the ids of a page in the time index alone and only then reads
// the rows, so that skipped rows cost one step of the index each.
func (s *Service) listPage(ctx context.Context, p pageRequest) ([]asset, error) {
	order, beyond := " ORDER BY timestamp DESC, id DESC", "<"
	if p.asc {
		order, beyond = " ORDER BY timestamp, id", ">"
	}
	where, args := "trashed = 0", []any{}
	offset := p.offset
	if mark, end, ok := s.pages.find(pageAt{asc: p.asc, offset: offset}); ok {
		where += " AND (timestamp, id) " + beyond + " (?, ?)"
		args = append(args, end.timestamp, end.id)
		offset -= mark.offset
	}
	query := "SELECT " + columns + " FROM (SELECT id AS k FROM assets INDEXED BY assets_time WHERE " + where + order +
		" LIMIT ? OFFSET ?) CROSS JOIN assets ON id = k" + order
	return s.index.query(ctx, query, append(args, p.limit, offset)...)
}

func (s *Service) listChanges(w http.ResponseWriter, r *http.Request, since string, p pageRequest) error {
	at := cursor{epoch: s.index.epoch}
	if since != "" {
		c, err := parseCursor(since)
		if err != nil {
			return err
		}
		if c.epoch != at.epoch {
			return badRequest("changed_since belongs to another index; start again with an empty one")
		}
		at = c
	}
	if p.offset != 0 || p.asc {
		return badRequest("offset and order don't go with changed_since")
	}
	items, err := s.index.changes(r.Context(), at.seq, p.limit+1)
	if err != nil {
		return err
	}
	more := len(items) > p.limit
	if more {
		items = items[:p.limit]
	}
	if n := len(items); n > 0 {
		at.seq = items[n-1].seq
	}
	return answer(w, listing{Items: items, Limit: p.limit, NextCursor: at.String(), More: &more})
}

// search is what GET /search selects; empty values don't restrict.
type search struct {
	tags                           []string // any of them
	application, user, mimeType, q string
}

// where returns the condition on assets and its arguments.
func (f search) where() (string, []any) {
	cond, args := []string{"trashed = 0"}, []any{}
	if len(f.tags) > 0 {
		cond = append(cond, "id IN (SELECT id FROM asset_tags WHERE tag IN (?"+strings.Repeat(",?", len(f.tags)-1)+"))")
		for _, t := range f.tags {
			args = append(args, t)
		}
	}
	for _, c := range []struct{ column, value string }{{"application", f.application}, {"user", f.user}} {
		if c.value != "" {
			cond = append(cond, c.column+" = ?")
			args = append(args, c.value)
		}
	}
	if m := strings.TrimSuffix(f.mimeType, "*"); strings.HasSuffix(m, "/") {
		cond = append(cond, "substr(mime_type, 1, ?) = ?")
		args = append(args, len(m), m) // mime types are ASCII
	} else if f.mimeType != "" {
		cond = append(cond, "mime_type = ?")
		args = append(args, f.mimeType)
	}
	if f.q != "" {
		like := "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(f.q) + "%"
		var any []string
		for _, c := range []string{"description", "human_filename", "human_path", "tags"} {
			any = append(any, c+` LIKE ? ESCAPE '\'`)
			args = append(args, like)
		}
		cond = append(cond, "("+strings.Join(any, " OR ")+")")
	}
	return strings.Join(cond, " AND "), args
}

func (s *Service) handleSearch(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	p, err := parsePage(q)
	if err != nil {
		return err
	}
	f := search{application: q.Get("application"), user: q.Get("user"), mimeType: q.Get("mime_type"), q: q.Get("q")}
	for _, v := range []struct{ name, value string }{{"application", f.application}, {"user", f.user}, {"mime_type", f.mimeType}, {"q", f.q}} {
		if err := checkText(v.name, v.value, maxName); err != nil {
			return err
		}
	}
	if f.tags, err = cleanTags(splitTags(strings.Join(q["tags"], ","))); err != nil {
		return err
	}
	where, args := f.where()
	var total int64
	if err := s.index.read.QueryRowContext(r.Context(), "SELECT COUNT(*) FROM assets WHERE "+where, args...).Scan(&total); err != nil {
		return err
	}
	order := " ORDER BY timestamp DESC, id DESC"
	if p.asc {
		order = " ORDER BY timestamp, id"
	}
	items, err := s.index.query(r.Context(), "SELECT "+columns+" FROM assets WHERE "+where+order+" LIMIT ? OFFSET ?", append(args, p.limit, p.offset)...)
	if err != nil {
		return err
	}
	return answer(w, listing{Items: items, Total: &total, Limit: p.limit, Offset: p.offset})
}

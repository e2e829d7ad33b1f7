package cantest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cansync/cansync/can"
)

func (s *Service) serveList(w http.ResponseWriter, req *http.Request, _ *Action) {
	q := req.URL.Query()
	limit, err1 := number(q.Get("limit"))
	offset, err2 := number(q.Get("offset"))
	order := q.Get("order")
	if err1 != nil || err2 != nil || order != "" && order != "asc" && order != "desc" {
		refuse(w, http.StatusBadRequest, "bad parameter")
		return
	}
	if q.Has("changed_since") && !s.lacks(FeatureChanges) {
		s.serveChanges(w, q.Get("changed_since"), limit)
		return
	}
	o := can.ListOptions{Limit: limit, Offset: offset}
	if order == "asc" {
		o.Order = can.Oldest
	}
	p := s.list(o)
	success(w, wirePage{Items: toWires(p.Assets), Total: &p.Total, Limit: limit, Offset: offset})
}

func number(v string) (int, error) {
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	return int(n), err
}

func (s *Service) serveChanges(w http.ResponseWriter, cursor string, limit int) {
	since, ok := parseCursor(cursor)
	if !ok {
		refuse(w, http.StatusBadRequest, "bad cursor")
		return
	}
	as, next, more := s.changesSince(since, limit)
	success(w, wirePage{Items: toWires(as), Limit: limit, Next: formatCursor(next), More: &more})
}

func parseCursor(c string) (uint64, bool) {
	if c == "" {
		return 0, true
	}
	digits, ok := strings.CutPrefix(c, "c")
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, ok && err == nil
}

func formatCursor(n uint64) string { return "c" + strconv.FormatUint(n, 10) }

func (s *Service) serveSearch(w http.ResponseWriter, req *http.Request, _ *Action) {
	q := req.URL.Query()
	limit, err1 := number(q.Get("limit"))
	offset, err2 := number(q.Get("offset"))
	if err1 != nil || err2 != nil {
		refuse(w, http.StatusBadRequest, "bad parameter")
		return
	}
	var found []can.Asset
	s.mu.Lock()
	s.listing.Reverse(func(e *entry) bool {
		if matches(e.asset, q) {
			found = append(found, clone(e.asset))
		}
		return true
	})
	s.mu.Unlock()
	total := len(found)
	found = found[min(offset, total):]
	if limit <= 0 {
		limit = 50
	}
	found = found[:min(limit, s.opts.PageCap, len(found))]
	success(w, wirePage{Items: toWires(found), Total: &total, Limit: limit, Offset: offset})
}

func matches(a can.Asset, q map[string][]string) bool {
	first := func(k string) string {
		if v := q[k]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	for tag := range strings.SplitSeq(first("tags"), ",") {
		if tag != "" && !strings.Contains("\x00"+strings.Join(a.Tags, "\x00")+"\x00", "\x00"+tag+"\x00") {
			return false
		}
	}
	for k, v := range map[string]string{"application": a.Application, "user": a.User, "mime_type": a.MIMEType} {
		if want := first(k); want != "" && want != v {
			return false
		}
	}
	return strings.Contains(a.Filename+"\x00"+a.Path+"\x00"+a.Description, first("q"))
}

func (s *Service) serveMeta(w http.ResponseWriter, req *http.Request, _ *Action) {
	e, ok := s.get(req.PathValue("hash"))
	if !ok {
		refuse(w, http.StatusNotFound, "no such asset")
		return
	}
	success(w, toWire(e.asset))
}

func (s *Service) serveUpdate(w http.ResponseWriter, req *http.Request, _ *Action) {
	var in struct {
		Tags        *[]string `json:"tags"`
		Description *string   `json:"description"`
		Application *string   `json:"application"`
		User        *string   `json:"user"`
		Filename    *string   `json:"human_filename"`
		Path        *string   `json:"human_path"`
	}
	if err := json.NewDecoder(io.LimitReader(req.Body, 1<<20)).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "bad JSON")
		return
	}
	a, ok := s.update(req.PathValue("hash"), can.Update{
		Application: in.Application, User: in.User, Description: in.Description,
		Filename: in.Filename, Path: in.Path, Tags: in.Tags,
	})
	if !ok {
		refuse(w, http.StatusNotFound, "no such asset")
		return
	}
	success(w, toWire(a))
}

func (s *Service) serveTrash(w http.ResponseWriter, req *http.Request, _ *Action) {
	if !s.trash(req.PathValue("hash")) {
		refuse(w, http.StatusNotFound, "no such asset")
		return
	}
	success(w, nil)
}

// pixel is a transparent PNG of one pixel.
const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func (s *Service) serveThumb(w http.ResponseWriter, req *http.Request, _ *Action) {
	e, ok := s.get(req.PathValue("hash"))
	png, err := base64.StdEncoding.DecodeString(pixel)
	if !ok || err != nil || !strings.HasPrefix(e.asset.MIMEType, "image/") {
		refuse(w, http.StatusNotFound, "no thumbnail")
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_, _ = w.Write(png)
}

func (s *Service) serveAsset(w http.ResponseWriter, req *http.Request, act *Action) {
	e, ok := s.get(req.PathValue("hash"))
	if !ok {
		refuse(w, http.StatusNotFound, "no such asset")
		return
	}
	content := s.open(e)
	if content == nil {
		refuse(w, http.StatusInternalServerError, "corrupted asset")
		return
	}
	w.Header().Set("Content-Type", e.asset.MIMEType)
	kind := ActionKind(255)
	if act != nil {
		kind = act.Kind
	}
	ranged := req.Header.Get("Range") != ""
	switch {
	case ranged && kind == ActRangeRefused:
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", e.asset.Size))
		refuse(w, http.StatusRequestedRangeNotSatisfiable, "range")
		return
	case ranged && kind == ActWrongRange:
		body := io.LimitReader(content, 7)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-6/%d", e.asset.Size))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.Copy(w, body)
		return
	case s.lacks(FeatureRange) || kind == ActNoRange || !ranged:
		w.Header().Set("Content-Length", strconv.FormatInt(e.asset.Size, 10))
		w.WriteHeader(http.StatusOK)
		_, _ = io.Copy(struct{ io.Writer }{w}, content)
		return
	}
	http.ServeContent(struct{ http.ResponseWriter }{w}, req, "", time.Time{}, content)
}

func (s *Service) serveEvents(w http.ResponseWriter, req *http.Request, _ *Action) {
	watch := s.subscribe()
	defer s.unsubscribe(watch)
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if rc.Flush() != nil {
		return
	}
	alive := time.NewTicker(s.opts.KeepAlive)
	defer alive.Stop()
	var late []byte // events that were kept back, the last first
	for {
		var err error
		select {
		case <-req.Context().Done():
			return
		case <-s.done:
			return
		case <-watch.gone:
			panic(http.ErrAbortHandler)
		case <-alive.C:
			_, err = io.WriteString(w, ": alive\n\n")
		case ev := <-watch.ch:
			err = s.writeEvent(w, req, ev, &late)
		}
		if err != nil || rc.Flush() != nil {
			return
		}
	}
}

func (s *Service) writeEvent(w http.ResponseWriter, req *http.Request, ev can.Event, late *[]byte) error {
	name := map[can.EventKind]string{
		can.EventNew: "new_asset", can.EventChanged: "asset_changed", can.EventTrashed: "asset_trashed",
	}[ev.Kind]
	data, err := json.Marshal(toWire(ev.Asset))
	if err != nil {
		return err
	}
	msg := []byte("event: " + name + "\ndata: " + string(data) + "\n\n")
	if act := s.enter(Call{RouteEvent, ev.Asset.Handle}); act != nil {
		switch act.Kind {
		case ActEventLost:
			return nil
		case ActEventTwice:
			msg = append(msg, msg...)
		case ActEventLate:
			*late = append(msg, *late...)
			return nil
		case ActEventUnknown:
			msg = []byte("event: weather_changed\ndata: {\"rain\":true}\n\n")
		case ActEventEndless:
			junk := bytes.Repeat([]byte("x"), 32<<10)
			for err == nil && req.Context().Err() == nil {
				_, err = w.Write(junk)
			}
			return err
		}
	}
	msg, *late = append(msg, *late...), nil
	_, err = w.Write(msg)
	return err
}

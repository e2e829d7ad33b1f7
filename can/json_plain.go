package can

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// plain reads listings and single assets in the form in which services usually write
// them, in one pass and with few allocations, since a full listing of a large service
// is hundreds of megabytes, and each ingest is answered with an asset and told of by
// an event. It understands a part of what decodeEnvelope and
// decodePage understand, means the same by it, and gives up on everything else:
// on what is malformed or merely unusual those have the say.
type plain struct {
	b   []byte
	at  int
	bad bool // it gave up
	// last is the asset read before, whose texts are used again where they repeat.
	last assetJSON
}

// maxPlainDepth bounds the nesting of what is skipped.
const maxPlainDepth = 16

// plainPage reads an answer with a page of a listing or of changes. ok is false
// where it gives up.
func plainPage(b []byte) (p page, ok bool) {
	r := plain{b: b}
	p.total = -1
	switch r.peek() {
	case '[':
		p.assets = r.assets()
	case '{':
		status, data := "", false
		r.object(envelopeNames, func(name string) {
			switch name {
			case "status":
				status = r.text("")
			case "data":
				data = true
				r.page(&p)
			default:
				r.skip(0)
			}
		})
		if status != "success" || !data {
			return page{}, false
		}
	default:
		return page{}, false
	}
	if !r.ended() {
		return page{}, false
	}
	return p, true
}

// plainAnswer reads an answer with a single asset, as to an ingest. ok is false where
// it gives up.
func plainAnswer(b []byte) (a Asset, ok bool) {
	r := plain{b: b}
	status, data := "", false
	r.object(envelopeNames, func(name string) {
		switch name {
		case "status":
			status = r.text("")
		case "data":
			a, data = r.single()
		default:
			r.skip(0)
		}
	})
	if status != "success" || !data || !r.ended() {
		return Asset{}, false
	}
	return a, true
}

// plainOne reads one asset. ok is false where it gives up.
func plainOne(b []byte) (a Asset, ok bool) {
	r := plain{b: b}
	if a, ok = r.single(); !ok || !r.ended() {
		return Asset{}, false
	}
	return a, true
}

func (r *plain) single() (Asset, bool) {
	j := r.asset()
	if r.bad {
		return Asset{}, false
	}
	a, err := j.asset()
	return a, err == nil
}

// ended reports whether all was read and understood.
func (r *plain) ended() bool {
	r.peek()
	return !r.bad && r.at == len(r.b)
}

// The names of the fields that count, each in a bit of its own.
var (
	envelopeNames = []string{"status", "data", "error"}
	pageNames     = []string{"items", "assets", "total", "next_cursor", "more"}
	assetNames    = []string{
		"hash", "timestamp", "mime_type", "size", "application", "user", "description", "tags",
		"human_filename", "human_file_name", "human_path", "human_readable_path", "is_trashed", "is_corrupted",
	}
)

func (r *plain) page(p *page) {
	if r.peek() == '[' {
		p.assets = r.assets()
		return
	}
	listed := false
	r.object(pageNames, func(name string) {
		switch name {
		case "items", "assets":
			if listed {
				r.bad = true
				return
			}
			listed = true
			p.assets = r.assets()
		case "total":
			if n := r.integer(); n.set {
				r.bad = r.bad || n.v < 0 || n.v > maxTotal
				p.total = int(n.v)
			}
		case "next_cursor":
			p.next = r.text("")
		case "more":
			if !r.null() {
				more := r.boolean()
				p.more = &more
			}
		default:
			r.skip(0)
		}
	})
}

func (r *plain) assets() (out []Asset) {
	r.array(func() {
		start := r.at
		j := r.asset()
		if r.bad {
			return
		}
		a, err := j.asset()
		if err != nil {
			r.bad = true
			return
		}
		if out == nil { // the others are probably as long
			out = make([]Asset, 0, min(1+(len(r.b)-r.at)/(r.at-start), 1024))
		}
		out = append(out, a)
		r.last = j
	})
	return out
}

func (r *plain) asset() (j assetJSON) {
	set := func(s *flexString, last flexString) { *s = flexString(r.text(string(last))) }
	r.object(assetNames, func(name string) {
		switch name {
		case "hash":
			set(&j.Hash, "")
		case "timestamp":
			j.Timestamp = r.integer()
		case "mime_type":
			set(&j.MIMEType, r.last.MIMEType)
		case "size":
			j.Size = r.integer()
		case "application":
			set(&j.Application, r.last.Application)
		case "user":
			set(&j.User, r.last.User)
		case "description":
			set(&j.Description, r.last.Description)
		case "tags":
			j.Tags = r.tags(r.last.Tags)
		case "human_filename":
			set(&j.Filename, r.last.Filename)
		case "human_file_name":
			set(&j.FileName, r.last.FileName)
		case "human_path":
			set(&j.Path, r.last.Path)
		case "human_readable_path":
			set(&j.ReadPath, r.last.ReadPath)
		case "is_trashed":
			j.Trashed = flexBool(r.boolean())
		case "is_corrupted":
			j.Corrupted = flexBool(r.boolean())
		default:
			r.skip(0)
		}
	})
	return j
}

// tags reads an array, a text of tags separated by commas, or null.
func (r *plain) tags(last flexTags) (out flexTags) {
	switch r.peek() {
	case '"':
		return splitTags(r.text(""))
	case 'n':
		r.null()
		return nil
	}
	r.array(func() {
		was := ""
		if len(out) < len(last) {
			was = last[len(out)]
		}
		if tag := r.text(was); tag != "" {
			if out == nil {
				out = make(flexTags, 0, max(len(last), 2))
			}
			out = append(out, tag)
		}
	})
	return out
}

// object reads an object and calls field at the value of each field, with one of
// the names or an empty one, which stands for a field that does not count.
func (r *plain) object(names []string, field func(name string)) {
	if !r.got('{') {
		r.bad = true
		return
	}
	if r.got('}') {
		return
	}
	for seen := 0; !r.bad; {
		key, escaped, ascii := r.token()
		if r.bad || escaped || !ascii {
			r.bad = true
			return
		}
		name := ""
		for i, n := range names {
			if len(n) != len(key) || !strings.EqualFold(n, string(key)) {
				continue
			}
			// Of a name in other letters, or one that comes twice, the meaning is
			// not obvious.
			r.bad = r.bad || n != string(key) || seen&(1<<i) != 0
			seen |= 1 << i
			name = n
			break
		}
		if !r.got(':') || r.bad {
			r.bad = true
			return
		}
		if field(name); r.got(',') {
			continue
		}
		r.bad = r.bad || !r.got('}')
		return
	}
}

func (r *plain) array(element func()) {
	if !r.got('[') {
		r.bad = true
		return
	}
	if r.got(']') {
		return
	}
	for !r.bad {
		if element(); r.got(',') {
			continue
		}
		r.bad = r.bad || !r.got(']')
		return
	}
}

// peek returns the next byte that is no space, or 0 at the end.
func (r *plain) peek() byte {
	for ; r.at < len(r.b); r.at++ {
		switch c := r.b[r.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// got reports whether c comes next, and passes it.
func (r *plain) got(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

// token passes a string and returns it with its quotes cut off. escaped says that
// something in it stands for something else, and ascii that all of it is ASCII.
func (r *plain) token() (tok []byte, escaped, ascii bool) {
	if !r.got('"') {
		r.bad = true
		return nil, false, false
	}
	start := r.at
	ascii = true
	for i := start; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			r.at = i + 1
			return r.b[start:i], escaped, ascii
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			r.bad = true
			return nil, false, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.bad = true
	return nil, false, false
}

// text reads a string, or null for an empty one. It returns was where that is what
// it reads.
func (r *plain) text(was string) string {
	if r.null() {
		return ""
	}
	r.peek()
	start := r.at
	tok, escaped, ascii := r.token()
	switch {
	case r.bad:
		return ""
	case !escaped && string(tok) == was:
		return was
	case !escaped && (ascii || utf8.Valid(tok)):
		return string(tok)
	}
	var s string
	if json.Unmarshal(r.b[start:r.at], &s) != nil {
		r.bad = true
	}
	return s
}

// null passes null and reports whether it came next.
func (r *plain) null() bool { return r.peek() == 'n' && r.word("null") }

func (r *plain) word(w string) bool {
	if len(r.b)-r.at < len(w) || string(r.b[r.at:r.at+len(w)]) != w {
		r.bad = true
		return false
	}
	r.at += len(w)
	return true
}

func (r *plain) boolean() bool {
	switch r.peek() {
	case 't':
		return r.word("true")
	case 'n':
		r.word("null")
	default:
		r.word("false")
	}
	return false
}

// integer reads an integer of up to 18 digits, or null.
func (r *plain) integer() (n flexInt) {
	if r.null() {
		return n
	}
	neg := r.got('-')
	start := r.at
	for ; r.at < len(r.b) && r.b[r.at] >= '0' && r.b[r.at] <= '9'; r.at++ {
		n.v = 10*n.v + int64(r.b[r.at]-'0')
		if r.at-start == 18 {
			r.bad = true
			return n
		}
	}
	if r.at == start || r.b[start] == '0' && r.at > start+1 {
		r.bad = true // a fraction or an exponent shows behind it, where nothing takes it
	}
	if neg {
		n.v = -n.v
	}
	n.set = true
	return n
}

// skip passes a value that does not count.
func (r *plain) skip(depth int) {
	if depth > maxPlainDepth {
		r.bad = true
		return
	}
	switch r.peek() {
	case '{':
		r.object(nil, func(string) { r.skip(depth + 1) })
	case '[':
		r.array(func() { r.skip(depth + 1) })
	case '"':
		start := r.at
		if _, escaped, _ := r.token(); escaped && !json.Valid(r.b[start:r.at]) {
			r.bad = true
		}
	case 't', 'f', 'n':
		r.boolean()
	default:
		start := r.at
		for r.at < len(r.b) && strings.IndexByte("+-.0123456789Ee", r.b[r.at]) >= 0 {
			r.at++
		}
		r.bad = r.bad || !json.Valid(r.b[start:r.at])
	}
}

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// readBody reads the body of a request, nil when there is none, and checks that
// it says to be JSON.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := failf(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", MaxBody)
	if r.ContentLength > MaxBody {
		w.Header().Set("Connection", "close") // rather than read what is left
		return nil, tooLarge
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	_ = rc.SetReadDeadline(time.Time{})
	var max *http.MaxBytesError
	switch {
	case errors.As(err, &max):
		return nil, tooLarge
	case err != nil:
		return nil, failf(http.StatusBadRequest, "the body ended early or took longer than %s", bodyTime)
	case len(body) == 0:
		return nil, nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, failf(http.StatusUnsupportedMediaType, "the body must be JSON: send \"Content-Type: application/json\"")
	}
	return body, nil
}

// noBody refuses a body where there is nothing to say.
func noBody(body []byte) error {
	if len(body) > 0 && !bytes.Equal(bytes.TrimSpace(body), []byte("{}")) {
		return failf(http.StatusBadRequest, "this request takes no body")
	}
	return nil
}

// decode reads a JSON object into a struct: nothing else, nothing after it, no
// keys but the struct's, none twice, in UTF-8.
func decode(body []byte, into any) error {
	bad := func(format string, args ...any) error { return failf(http.StatusBadRequest, format, args...) }
	trimmed := bytes.TrimSpace(body)
	switch {
	case len(trimmed) == 0:
		return bad("a JSON object is required as the body")
	case !utf8.Valid(body):
		return bad("the body is not UTF-8")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return bad("malformed JSON at byte %d: %s", syntax.Offset, plainSyntax(syntax))
		}
		return bad("malformed JSON")
	}
	if trimmed[0] != '{' {
		return bad("the body must be a JSON object")
	}
	if err := checkKeys(trimmed, reflect.TypeOf(into).Elem(), ""); err != nil {
		return bad("%s", err.Error())
	}
	if err := json.Unmarshal(body, into); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return bad("%s: want %s, got %s", plainField(typ.Field), wanted(typ.Type), got(typ.Value))
		}
		return bad("malformed JSON")
	}
	return nil
}

// plainField leaves out the names of embedded Go structs, which a field of theirs is
// named behind; keys of requests begin with a small letter and such structs are
// called in mixed caps.
func plainField(name string) string {
	parts := strings.Split(name, ".")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p != strings.ToLower(p) }), ".")
}

// plainSyntax keeps the reason of a syntax error, which names at most a character.
func plainSyntax(err *json.SyntaxError) string { return clip(err.Error()) }

// checkKeys compares an object's keys with the struct that it is for. The object
// is known to be well-formed.
func checkKeys(object []byte, t reflect.Type, path string) error {
	fields := make(map[string]reflect.Type)
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous { // its fields count as the struct's own
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields[name] = f.Type
		}
	}
	known := slices.Sorted(maps.Keys(fields))
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return errors.New("malformed JSON")
	}
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return errors.New("malformed JSON")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return errors.New("malformed JSON")
		}
		key, _ := tok.(string)
		typ, ok := fields[key]
		switch {
		case !ok:
			return fmt.Errorf("unknown key %q; known keys are %s", path+clip(key), strings.Join(known, ", "))
		case seen[key]:
			return fmt.Errorf("key %q is given twice", path+key)
		}
		seen[key] = true
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Struct && value[0] == '{' {
			if err := checkKeys(value, typ, path+key+"."); err != nil {
				return err
			}
		}
	}
	return nil
}

// wanted names a Go type in the words of JSON.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list of strings"
	default:
		return "an object"
	}
}

// got names what a JSON value was.
func got(value string) string {
	switch kind, _, _ := strings.Cut(value, " "); kind {
	case "number":
		if value == kind {
			return "a number"
		}
		return "the " + clip(value)
	case "bool":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "an object"
	default:
		return "a " + clip(kind)
	}
}

// query reads the parameters of a URL, of which only the known may be there, each
// once.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, failf(http.StatusBadRequest, "the query of the URL is malformed")
	}
	for name, values := range q {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, failf(http.StatusBadRequest, "unknown parameter %q; this path takes none", clip(name))
		case !slices.Contains(known, name):
			return nil, failf(http.StatusBadRequest, "unknown parameter %q; known ones are %s", clip(name), strings.Join(known, ", "))
		case len(values) > 1:
			return nil, failf(http.StatusBadRequest, "parameter %q is given more than once", name)
		}
	}
	return q, nil
}

func boolParam(q url.Values, name string) (bool, error) {
	switch q.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, failf(http.StatusBadRequest, "parameter %q: want true or false", name)
}

func intParam(q url.Values, name string, def, low, high int) (int, error) {
	if !q.Has(name) {
		return def, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < low || n > high {
		return 0, failf(http.StatusBadRequest, "parameter %q: want a whole number from %d to %d", name, low, high)
	}
	return n, nil
}

package can

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The frame of an ingest is what mime/multipart writes.
func TestMultipartFrame(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.SampledFrom([]string{"a\"b\\c\r\n\x00d", "--", "image/jpeg", "é日"}))
	seen := make(map[string]bool)
	rapid.Check(t, func(rt *rapid.T) {
		in := Ingest{
			Timestamp: rapid.SampledFrom([]int64{0, 1, 1_750_000_000_000}).Draw(rt, "timestamp"),
			Metadata: Metadata{
				MIMEType: text.Draw(rt, "type"), Application: text.Draw(rt, "application"), User: text.Draw(rt, "user"),
				Description: text.Draw(rt, "description"), Filename: text.Draw(rt, "filename"), Path: text.Draw(rt, "path"),
				Tags: rapid.SliceOfN(text, 0, 3).Draw(rt, "tags"),
			},
		}
		head, tail, ctype := multipartFrame(in)
		kind, params, err := mime.ParseMediaType(ctype)
		require.NoError(rt, err)
		require.Equal(rt, "multipart/form-data", kind)
		require.False(rt, seen[params["boundary"]], "a boundary is used once")
		seen[params["boundary"]] = true

		var want bytes.Buffer
		w := multipart.NewWriter(&want)
		require.NoError(rt, w.SetBoundary(params["boundary"]))
		field := func(name, value string) {
			if value != "" {
				require.NoError(rt, w.WriteField(name, value))
			}
		}
		field("mime_type", in.MIMEType)
		field("human_file_name", in.Filename)
		field("human_readable_path", in.Path)
		field("application", in.Application)
		field("user", in.User)
		field("tags", strings.Join(in.Tags, ","))
		field("description", in.Description)
		if in.Timestamp > 0 {
			field("timestamp", strconv.FormatInt(in.Timestamp, 10))
		}
		typ := "application/octet-stream"
		if in.MIMEType != "" && plainHeader(in.MIMEType) {
			typ = in.MIMEType
		}
		file, err := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {`form-data; name="file"; filename="` + quoteFilename(in.Filename) + `"`},
			"Content-Type":        {typ},
		})
		require.NoError(rt, err)
		_, err = file.Write([]byte("content"))
		require.NoError(rt, err)
		require.NoError(rt, w.Close())
		require.Equal(rt, want.String(), string(head)+"content"+string(tail))
	})
}

// What Go's own reader of multipart refuses, no service in Go would ever take.
func TestAnyFilenameCanBeRead(t *testing.T) {
	var name strings.Builder
	for c := range 256 {
		name.WriteByte(byte(c))
	}
	for _, filename := range []string{name.String(), "\x01", "\x7f", "\t", "\u2028", "a\r\nX: y\r\n\r\n--b"} {
		head, tail, contentType := multipartFrame(Ingest{Metadata: Metadata{Filename: filename, MIMEType: "a/b\x01"}})
		_, params, err := mime.ParseMediaType(contentType)
		require.NoError(t, err)
		r := multipart.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("content"), bytes.NewReader(tail)), params["boundary"])
		parts := 0
		for {
			p, err := r.NextRawPart()
			if err == io.EOF {
				break
			}
			require.NoError(t, err, "%q", filename)
			parts++
			require.Len(t, p.Header["Content-Disposition"], 1)
			require.Empty(t, p.Header["X"])
		}
		require.Positive(t, parts)
	}
}

package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/cansync/cansync/can"
	"github.com/stretchr/testify/require"
)

func FuzzCursor(f *testing.F) {
	f.Add("0123456789abcdef-0")
	f.Add("0123456789abcdef-9223372036854775807")
	f.Add("0123456789abcdef--1")
	f.Add("0123456789abcdef-01")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCursor(s)
		if err != nil {
			var re *requestError
			require.ErrorAs(t, err, &re)
			require.Equal(t, 400, re.status)
			return
		}
		require.Equal(t, s, c.String())
	})
}

func FuzzBlobName(f *testing.F) {
	f.Add(blobName(1700000000000, can.Digest{1}))
	f.Add("../" + blobName(1, can.Digest{}))
	f.Add("01_" + can.Digest{}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if ts, h, ok := parseBlobName(s); ok {
			require.Equal(t, s, blobName(ts, h))
		}
	})
}

func FuzzMetaFile(f *testing.F) {
	f.Add([]byte(`{"hash":"","timestamp":1,"size":3,"mime_type":"a/b","tags":["x"],"user":null}`))
	good, err := json.Marshal(asset{Size: 4, metadata: metadata{MIMEType: "a/b", User: "u", Tags: []string{"a"}}})
	require.NoError(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, size, err := decodeMeta(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(asset{Size: size, metadata: m})
		require.NoError(t, err)
		m2, size2, err := decodeMeta(again)
		require.NoError(t, err)
		require.True(t, m.equal(m2))
		require.Equal(t, size, size2)
	})
}

func FuzzJSONBodies(f *testing.F) {
	f.Add([]byte(`{"data":{"a":1},"tags":"a,b","timestamp":5}`))
	f.Add([]byte(`{"tags":["a"],"user":null,"human_path":"x"}`))
	f.Add([]byte(`{"tags":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(err error) {
			var re *requestError
			require.True(t, errors.As(err, &re), err)
			require.Equal(t, 400, re.status)
		}
		if fm, content, err := parseData(data); err != nil {
			check(err)
		} else {
			require.True(t, json.Valid(content))
			m, err := fm.finish()
			require.NoError(t, err)
			m2, err := m.check()
			require.NoError(t, err)
			require.True(t, m.equal(m2))
		}
		if up, err := parseUpdate(data); err != nil {
			check(err)
		} else {
			once, err := up.apply(metadata{MIMEType: "a/b", User: "u", Tags: []string{"t"}})
			require.NoError(t, err)
			twice, err := up.apply(once)
			require.NoError(t, err)
			require.True(t, once.equal(twice))
		}
	})
}

func FuzzMultipart(f *testing.F) {
	svc, err := Open(Config{StorageRoot: f.TempDir()})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, svc.Close()) })
	const boundary = "b"
	body, ct := upload(f, "x.txt", []byte("content"), "tags", "a,b", "-user", "u")
	_, b, _ := bytes.Cut([]byte(ct), []byte("boundary="))
	f.Add(bytes.ReplaceAll(body, b, []byte(boundary)))
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../x\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41\r\n--b--"))
	f.Add([]byte("--b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := httptest.NewRequest(http.MethodPost, "http://localhost"+Prefix+"/ingest", bytes.NewReader(data))
		r.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
		w := httptest.NewRecorder()
		svc.Handler().ServeHTTP(w, r)
		require.Contains(t, []int{200, 400}, w.Code, w.Body.String())
		var out testAnswer
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
		require.Equal(t, w.Code == 200, out.Status == "success")
	})
}

package libp2p

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.key")
	key, err := LoadKey(path)
	require.NoError(t, err)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	again, err := LoadKey(path)
	require.NoError(t, err)
	require.Equal(t, key, again)
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.ErrorIs(t, writeKey(path, newKey(t)), os.ErrExist)

	require.NoError(t, os.Chmod(path, 0o640))
	_, err = LoadKey(path)
	require.ErrorIs(t, err, ErrKeyFile)
	for _, text := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		bad := filepath.Join(t.TempDir(), "bad")
		require.NoError(t, os.WriteFile(bad, []byte(text), 0o600))
		_, err = LoadKey(bad)
		require.ErrorIs(t, err, ErrKeyFile)
	}
	_, err = LoadKey(filepath.Join(t.TempDir(), "no", "dir"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

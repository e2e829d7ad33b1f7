package keyring

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/store"
)

func sample(t testing.TB) Library {
	t.Helper()
	owner, err := capability.NewSigningKey(rand.Reader)
	require.NoError(t, err)
	lasting, err := capability.NewSecret(rand.Reader)
	require.NoError(t, err)
	return Library{
		ID: capability.LibraryID(owner.Public()), State: Active, Name: "photos", Owner: owner, Lasting: lasting,
		Epochs: []Epoch{{0, lasting}}, Bundle: []byte{1, 2, 3}, Cert: [32]byte{9}, Mode: "sync", Rested: "receive-only",
	}
}

func TestKeysSurviveAReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, err := Open(dir, rand.Reader)
	require.NoError(t, err)
	l := sample(t)
	require.NoError(t, r.Save(l))
	id := r.Device().PeerID()
	require.NoError(t, r.Close())

	r, err = Open(dir, rand.Reader)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	require.Equal(t, id, r.Device().PeerID())
	got, ok := r.Library(l.ID)
	require.True(t, ok)
	require.Equal(t, l.Owner.Seed(), got.Owner.Seed())
	require.Equal(t, l.Lasting.Bytes(), got.Lasting.Bytes())
	require.Equal(t, l.Epochs[0].Secret.Bytes(), got.Epochs[0].Secret.Bytes())
	require.Equal(t, l.Bundle, got.Bundle)
	require.Equal(t, l.Cert, got.Cert)
	require.NoError(t, r.Remove(l.ID))
	require.Empty(t, r.Libraries())
}

func TestEveryFileIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, err := Open(dir, rand.Reader)
	require.NoError(t, err)
	require.NoError(t, r.Save(sample(t)))
	require.NoError(t, r.Close())
	files := 0
	require.NoError(t, filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		require.NoError(t, err)
		if st.IsDir() {
			require.Equal(t, os.FileMode(0o700), st.Mode().Perm(), p)
		} else {
			files++
			require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), p)
		}
		return nil
	}))
	require.Equal(t, 3, files) // with the lock
}

func TestAKeyThatOthersCanReadIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, err := Open(dir, rand.Reader)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, os.Chmod(filepath.Join(dir, identityFile), 0o640))
	_, err = Open(dir, rand.Reader)
	require.ErrorIs(t, err, ErrUnsafe)
	require.ErrorContains(t, err, "chmod 600")
}

func TestDamagedFilesAreNamedWithoutTheirSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, err := Open(dir, rand.Reader)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	const secret = "5ec4e75ec4e7"
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"state":"active","lasting":"` + secret + `zz"}`, `{"version":1,"x":"` + secret + `"}`} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, librarySub, "a.key"), []byte(text), 0o600))
		_, err = Open(dir, rand.Reader)
		require.ErrorIs(t, err, ErrDamaged, text)
		require.NotContains(t, fmt.Sprintf("%v %+v", err, err), secret)
	}
}

func TestACopyOfAKeyFileIsNotTakenForTheKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, err := Open(dir, rand.Reader)
	require.NoError(t, err)
	l := sample(t)
	require.NoError(t, r.Save(l))
	old, err := os.ReadFile(filepath.Join(dir, fileOf(l.ID)))
	require.NoError(t, err)
	l.State = Archived
	require.NoError(t, r.Save(l))
	require.NoError(t, r.Close())
	kept := filepath.Join(dir, librarySub, "kept.key") // behind every hexadecimal name
	require.NoError(t, os.WriteFile(kept, old, 0o600))
	_, err = Open(dir, rand.Reader)
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, "kept.key")
	require.ErrorContains(t, err, "rename it to "+filepath.Base(fileOf(l.ID)))
	require.NoError(t, os.Remove(kept))
	r, err = Open(dir, rand.Reader)
	require.NoError(t, err)
	got, _ := r.Library(l.ID)
	require.Equal(t, Archived, got.State)
	require.NoError(t, r.Close())
}

func TestOneProcessPerFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, err := Open(dir, rand.Reader)
	require.NoError(t, err)
	_, err = Open(dir, rand.Reader)
	require.ErrorIs(t, err, store.ErrLocked)
	require.NoError(t, r.Close())
	r, err = Open(dir, rand.Reader)
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

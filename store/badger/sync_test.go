package badger

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

// logsOf lists the logs of memtables.
func logsOf(t *testing.T, dir string) (logs []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), logSuffix) {
			logs = append(logs, e.Name())
		}
	}
	return logs
}

// TestSyncerFollowsTheLogs writes many memtables full with few syncs between, so that
// logs come and go unseen, and checks that a sync leaves none out.
func TestSyncerFollowsTheLogs(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	value := make([]byte, store.MaxValue/2)
	written, newest, skipped := 0, "", false
	early := func(n int) {
		for range n {
			_, err := rand.Read(value)
			require.NoError(t, err)
			txn, err := s.NewTransaction(t.Context(), false)
			require.NoError(t, err)
			require.NoError(t, txn.Put(t.Context(), ds.RawKey(fmt.Sprintf("/v/%d", written)), value))
			require.NoError(t, txn.(store.EarlyTxn).CommitEarly(t.Context()))
			written++
		}
	}
	perTable := memTableSize/len(value) + 1
	for _, n := range []int{1, 1, perTable, 1, 4 * perTable, 1, 1, 3 * perTable} {
		early(n)
		before := logsOf(t, dir)
		expected := s.sync.next
		require.NoError(t, s.Sync(t.Context(), ds.RawKey("/")))
		for _, name := range before {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				require.Contains(t, s.sync.logs, name)
			}
		}
		last := before[len(before)-1]
		skipped = skipped || expected != "" && last > expected
		newest = max(newest, last)
	}
	require.True(t, skipped, "the logs came one by one")
	require.Greater(t, newest, logName(5))
}

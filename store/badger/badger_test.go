package badger_test

import (
	"testing"

	dstest "github.com/ipfs/go-datastore/test"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store/badger"
)

func TestDatastoreSuite(t *testing.T) {
	s, err := badger.Open(t.TempDir(), badger.Fast())
	require.NoError(t, err)
	defer s.Close()
	dstest.SubtestAll(t, s)
}

package badger_test

import (
	"strconv"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dstest "github.com/ipfs/go-datastore/test"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/badger"
	"github.com/cansync/cansync/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(o badger.Options) storetest.Config {
	return storetest.Config{Persistent: true, Open: func(t testing.TB, dir string) store.Store {
		s, err := badger.Open(dir, o)
		require.NoError(t, err)
		return s
	}}
}

func TestStore(t *testing.T) { storetest.Run(t, config(badger.Options{})) }

// TestGoDatastore runs go-datastore's own suite but for the combinations of
// query options, which make tens of thousands of writes; store/memory runs those
// on the same code.
func TestGoDatastore(t *testing.T) {
	for i, test := range []func(*testing.T, ds.Datastore){
		dstest.SubtestBasicPutGet, dstest.SubtestNotFounds, dstest.SubtestPrefix, dstest.SubtestOrder, dstest.SubtestLimit,
		dstest.SubtestFilter, dstest.SubtestManyKeysAndQuery, dstest.SubtestReturnSizes, dstest.SubtestBasicSync,
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			s := config(badger.Fast()).Open(t, t.TempDir())
			test(t, s)
			require.NoError(t, s.Close())
		})
	}
	for i, test := range dstest.BatchSubtests {
		t.Run("Batch"+strconv.Itoa(i), func(t *testing.T) {
			s := config(badger.Fast()).Open(t, t.TempDir())
			test(t, s)
			require.NoError(t, s.Close())
		})
	}
}

func BenchmarkStore(b *testing.B) { storetest.Bench(b, config(badger.Options{})) }

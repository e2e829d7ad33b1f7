package memory_test

import (
	"testing"

	dstest "github.com/ipfs/go-datastore/test"

	"github.com/cansync/cansync/store/memory"
)

func TestDatastoreSuite(t *testing.T) {
	s := memory.New()
	defer s.Close()
	dstest.SubtestAll(t, s)
}

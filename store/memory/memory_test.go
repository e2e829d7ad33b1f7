package memory_test

import (
	"testing"

	"github.com/cansync/cansync/store"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/store/storetest"
)

func config(elements int) storetest.Config {
	return storetest.Config{Elements: elements, Open: func(testing.TB, string) store.Store { return memory.New() }}
}

func TestStore(t *testing.T) { storetest.Run(t, config(100)) }

func BenchmarkStore(b *testing.B) { storetest.Bench(b, config(0)) }

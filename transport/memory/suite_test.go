package memory_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/memory"
	"github.com/cansync/cansync/transport/transporttest"
)

func three(o memory.Options) transporttest.Maker {
	return func(testing.TB) (a, b, c transport.Transport) {
		n := memory.NewNetwork(o)
		return n.Host(id(1)), n.Host(id(2)), n.Host(id(3))
	}
}

func TestTransport(t *testing.T) { transporttest.Run(t, three(memory.Options{})) }

// TestTransportVirtual runs each case in virtual time, over links that delay.
func TestTransportVirtual(t *testing.T) {
	o := memory.Options{Link: memory.Link{Latency: 3 * time.Millisecond, Bandwidth: 64 << 20}}
	for _, c := range transporttest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.Run(t, three(o), transporttest.NoLeakCheck())
			})
		})
	}
}

func BenchmarkTransport(b *testing.B) { transporttest.Bench(b, three(memory.Options{})) }

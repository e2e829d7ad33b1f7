package replica

import (
	"context"
	"encoding/binary"

	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

// MaxCounted is what one asset counts at most where sizes are added up, in bytes: more
// than a node could stage. A size is what a record claims, and a few made up ones must
// not turn a sum into nonsense.
const MaxCounted = 4 << 40

// Bytes is the size of the asset as it is counted, at most [MaxCounted].
func (e Entry) Bytes() int64 { return int64(min(e.Body.Size, MaxCounted)) }

func (c *Counts) replace(was, is Entry) {
	if was.Member {
		c.Live--
		c.LiveBytes -= was.Bytes()
	}
	if was.Tombstone() {
		c.Tombstones--
	}
	if is.Member {
		c.Live++
		c.LiveBytes += is.Bytes()
	}
	if is.Tombstone() {
		c.Tombstones++
	}
}

func (c Counts) encode(clock record.Clock) []byte {
	b := make([]byte, 0, 64)
	for _, v := range []int64{c.Records, c.Live, c.LiveBytes, c.Tombstones, c.Queued, int64(clock), c.Trashed, c.TrashedBytes} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func (r *Replica) loadCounts(ctx context.Context) error {
	b, err := kv.Get(ctx, r.opts.Store, r.key("c"))
	if err != nil || b == nil {
		return err
	}
	rd := wire.NewReader(b)
	r.counts = Counts{Records: rd.I64(), Live: rd.I64(), LiveBytes: rd.I64(), Tombstones: rd.I64(), Queued: rd.I64()}
	r.clock = record.Clock(rd.U64())
	if rd.Len() > 0 { // what was written before these were counted has none
		r.counts.Trashed, r.counts.TrashedBytes = rd.I64(), rd.I64()
	}
	return rd.End()
}

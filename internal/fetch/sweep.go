package fetch

import (
	"context"

	"github.com/cansync/cansync/internal/blob"
)

// Sweep removes staged contents that nobody wants: of libraries that were not
// added, of assets that left their library, and of those that the service holds.
// It is called after all libraries were added and returns how much it removed.
func (f *Fetcher) Sweep(ctx context.Context) (stages int, bytes int64, err error) {
	if f.cfg.Stages == nil {
		return 0, 0, nil
	}
	for l, err := range blob.Leftovers(f.cfg.Stages) {
		if err != nil {
			return stages, bytes, err
		}
		wanted, err := f.wanted(ctx, l.Key)
		if err != nil {
			return stages, bytes, err
		}
		if wanted {
			continue
		}
		if err := blob.RemoveStage(f.cfg.Stages, l.Key); err != nil {
			return stages, bytes, err
		}
		stages++
		bytes += l.Bytes
	}
	return stages, bytes, nil
}

func (f *Fetcher) wanted(ctx context.Context, key blob.StageKey) (bool, error) {
	f.mu.Lock()
	d := f.libs[key.Library]
	var busy bool
	if d != nil {
		t := d.pending[key.Digest]
		busy = t != nil && t.running
	}
	f.mu.Unlock()
	if d == nil || busy {
		return busy, nil
	}
	e, err := d.lib.Entry(ctx, key.Digest)
	if err != nil || !e.Member {
		return false, err
	}
	_, queued, err := d.lib.Work(ctx, key.Digest)
	return queued, err
}

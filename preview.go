package cansync

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/announce"
	"github.com/cansync/cansync/internal/filter"
)

// Preview says what a filter selects.
type Preview struct {
	// Filter is the filter with the service's own hashes replaced by digests.
	Filter Filter
	// Matches is how many assets of the local CAN Service match now, as far as
	// could be told; -1 when the service could not be asked.
	Matches int
	// Unknown are the hashes that the local CAN Service does not know, and that
	// were taken as digests of contents.
	Unknown []string
}

// Preview resolves a filter and counts the local assets that match it now. A
// service that can't be reached is no error, unless the filter's hashes depend on
// it. Errors match [ErrFilter].
func (n *Node) Preview(ctx context.Context, f Filter) (Preview, error) {
	done, err := n.use()
	if err != nil {
		return Preview{}, err
	}
	defer done()
	resolved, unknown, err := n.resolve(ctx, f)
	if err != nil {
		return Preview{}, err
	}
	p := Preview{Filter: filterOf(resolved), Unknown: unknown}
	if p.Matches, err = n.count(ctx, resolved); err != nil {
		n.log.Debug("assets not counted", "error", err)
		p.Matches = -1
	}
	return p, nil
}

// previewPage is the size of the listing pages that Preview asks for.
const previewPage = 1000

func (n *Node) count(ctx context.Context, f filter.Filter) (int, error) {
	total, offset := 0, 0
	rest := f
	rest.Hashes = nil
	for {
		page, err := n.cfg.CAN.List(ctx, can.ListOptions{Limit: previewPage, Offset: offset, Order: can.Oldest})
		if err != nil {
			return 0, err
		}
		for _, a := range page.Assets {
			if !rest.Match(can.Digest{}, a.Metadata) {
				continue
			}
			if len(f.Hashes) > 0 {
				d, err := n.digestOf(ctx, a.Handle)
				if err != nil {
					return 0, err
				}
				if !slices.Contains(f.Hashes, d) {
					continue
				}
			}
			total++
		}
		if offset += len(page.Assets); len(page.Assets) == 0 || page.Total >= 0 && offset >= page.Total {
			return total, nil
		}
	}
}

// digestOf returns the digest behind a handle: the one that was computed or,
// until then, the one that the handle spells.
func (n *Node) digestOf(ctx context.Context, handle string) (can.Digest, error) {
	item, ok, err := n.inv.ByHandle(ctx, handle)
	if err != nil || ok {
		return item.Digest, err
	}
	d, err := can.ParseDigest(handle)
	if err != nil {
		return can.Digest{}, nil
	}
	return d, nil
}

// resolve replaces the service's hashes in a filter by digests of contents.
func (n *Node) resolve(ctx context.Context, f Filter) (filter.Filter, []string, error) {
	var unknown []string
	var digests []can.Digest
	if len(f.Hashes) > filter.MaxHashes {
		return filter.Filter{}, nil, fmt.Errorf("%w: hashes: %d of them, at most %d; use a tag instead", ErrFilter, len(f.Hashes), filter.MaxHashes)
	}
	for _, h := range f.Hashes {
		if h == "" {
			return filter.Filter{}, nil, fmt.Errorf("%w: hashes: one is empty", ErrFilter)
		}
		if item, ok, err := n.inv.ByHandle(ctx, h); err == nil && ok {
			digests = append(digests, item.Digest)
			continue
		}
		d, known, err := n.hashNow(ctx, h)
		switch {
		case err != nil:
			return filter.Filter{}, nil, err
		case known:
		default:
			if d, err = can.ParseDigest(h); err != nil {
				return filter.Filter{}, nil, fmt.Errorf("%w: hashes: %q is neither a hash that the CAN Service knows nor the SHA-256 of a content", ErrFilter, clip(h))
			}
			if items, err := n.inv.ByDigest(ctx, d); err == nil && len(items) == 0 {
				unknown = append(unknown, h)
			}
		}
		digests = append(digests, d)
	}
	out := f.parse(digests)
	if err := out.Validate(); err != nil {
		return filter.Filter{}, nil, err
	}
	return out, unknown, nil
}

// hashNow reads an asset that was not scanned yet and returns the digest of its
// content; not known when the service does not have it.
func (n *Node) hashNow(ctx context.Context, handle string) (can.Digest, bool, error) {
	d, err := announce.Hash(ctx, n.cfg.CAN, handle)
	switch {
	case err == nil:
		return d, true, nil
	case errors.Is(err, can.ErrNotFound), errors.Is(err, can.ErrBadRequest):
		return can.Digest{}, false, nil
	}
	if _, perr := can.ParseDigest(handle); perr == nil {
		return can.Digest{}, false, nil // taken as a digest while the service can't tell
	}
	return can.Digest{}, false, fmt.Errorf("hash %s: %w", clip(handle), err)
}

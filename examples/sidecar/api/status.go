package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

func (h *Handler) status(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	s := h.node.Status()
	if s.Service.Err == nil && s.Service.LastScan.IsZero() {
		s.Service.Err = h.probe(r.Context())
	}
	v := statusView{
		PeerID: s.PeerID.String(), Addrs: full(s.Addrs, s.PeerID), Version: s.Version, StartedAt: s.Started.UTC().Format(time.RFC3339),
		UptimeSecs: max(0, int64(time.Since(s.Started)/time.Second)), Network: string(h.opts.Network),
		Service: serviceView{
			URL: h.opts.ServiceURL, Healthy: s.Service.Err == nil,
			Error: reason(s.Service.Err), Since: stamp(s.Service.Since), LastScan: stamp(s.Service.LastScan),
		},
		Clock:     clockView{BehindSecs: int64(s.Clock.Behind / time.Second), EarlyRecords: s.Clock.Early},
		Libraries: s.Libraries, Peers: s.Peers, Panics: h.Panics(),
	}
	if s.Disk != nil {
		v.Disk = &diskView{FreeBytes: s.Disk.Free, ReserveBytes: s.Disk.Reserve, Low: s.Disk.Free < s.Disk.Reserve}
	}
	return v, nil
}

// probeTime bounds how long the status waits for the CAN Service.
const probeTime = 2 * time.Second

// probe asks the CAN Service itself, for the time before the node has heard of it.
func (h *Handler) probe(ctx context.Context) error {
	if h.opts.Probe == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := h.opts.Probe(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: no answer within %s", can.ErrUnavailable, probeTime)
	}
	return err
}

func (h *Handler) peers(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	peers, err := h.node.Peers()
	if err != nil {
		return nil, err
	}
	out := make([]peerView, 0, len(peers))
	for _, p := range peers {
		v := peerView{ID: p.ID.String(), Addrs: full(p.Addrs, p.ID), Libraries: []string{}, Connection: "direct"}
		if p.Relayed {
			v.Connection = "relayed"
		}
		for _, id := range p.Libraries {
			v.Libraries = append(v.Libraries, id.String())
		}
		if p.Latency > 0 {
			ms := millis(p.Latency)
			v.LatencyMS = &ms
		}
		out = append(out, v)
	}
	return out, nil
}

// full makes addresses complete, so that they can be pasted into a configuration.
func full(addrs []string, id transport.PeerID) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if !strings.HasSuffix(a, "/p2p/"+id.String()) {
			a += "/p2p/" + id.String()
		}
		out = append(out, a)
	}
	return out
}

// plainRequest refuses what a request without parameters does not take.
func plainRequest(r *http.Request, body []byte) error {
	if _, err := query(r); err != nil {
		return err
	}
	return noBody(body)
}

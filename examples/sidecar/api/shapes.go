package api

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/cansync/cansync"
)

// The shapes of the data in answers. Fields may be added, never taken away.

type statusView struct {
	PeerID     string      `json:"peer_id"`
	Addrs      []string    `json:"addrs"`
	Version    string      `json:"version"`
	UptimeSecs int64       `json:"uptime_secs"`
	StartedAt  string      `json:"started_at"`
	Network    string      `json:"network"`
	Service    serviceView `json:"can_service"`
	Libraries  int         `json:"libraries"`
	Peers      int         `json:"peers"`
	Disk       *diskView   `json:"disk"`
	Clock      clockView   `json:"clock"`
	Panics     int64       `json:"panics"`
}

type serviceView struct {
	URL      string  `json:"url"`
	Healthy  bool    `json:"healthy"`
	Error    *string `json:"error"`
	Since    *string `json:"since"`
	LastScan *string `json:"last_scan"`
}

type diskView struct {
	FreeBytes    uint64 `json:"free_bytes"`
	ReserveBytes uint64 `json:"reserve_bytes"`
	Low          bool   `json:"low"`
}

// clockView tells of a clock that is wrong; all is 0 where it is right.
type clockView struct {
	BehindSecs   int64 `json:"behind_secs"`
	EarlyRecords int   `json:"early_records"`
}

type peerView struct {
	ID         string   `json:"id"`
	Addrs      []string `json:"addrs"`
	Libraries  []string `json:"libraries"`
	Connection string   `json:"connection"`
	LatencyMS  *float64 `json:"latency_ms"`
}

type libraryView struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"`
	Filter  cansync.Filter `json:"filter"`
	Access  string         `json:"access"`
	Rights  []string       `json:"rights"`
	State   string         `json:"state"`
	Assets  int64          `json:"assets"`
	Bytes   int64          `json:"bytes"`
	Synced  int64          `json:"synced"`
	Trashed int64          `json:"trashed_here"`
	Pending int64          `json:"pending"`
	Failed  int64          `json:"failed"`
	// Causes counts what keeps the failed ones.
	Causes  map[cansync.Cause]int64 `json:"causes"`
	Removed int64                   `json:"removed"`
	// DeletePolicy is the library's; Mode, View, Publish, Limits and Quota are this
	// node's own.
	Mode         string         `json:"mode"`
	View         cansync.Filter `json:"view"`
	Publish      string         `json:"publish"`
	DeletePolicy string         `json:"delete_policy"`
	Limits       limitsView     `json:"limits"`
	Quota        int64          `json:"quota"`
	Held         int            `json:"held"`
	Peers        int            `json:"peers"`
	ExpiresAt    *string        `json:"expires_at"`
	// Refused is why a ticket was refused last.
	Refused *string `json:"refused"`
}

// createdView is a library with what its filter selects here.
type createdView struct {
	libraryView
	// Matches is nil when the CAN Service could not be asked.
	Matches       *int     `json:"matches"`
	UnknownHashes []string `json:"unknown_hashes"`
}

type inviteView struct {
	Ticket        string   `json:"ticket"`
	Library       string   `json:"library"`
	Name          string   `json:"name"`
	Access        string   `json:"access"`
	Rights        []string `json:"rights"`
	ExpiresAt     string   `json:"expires_at"`
	ExpiresInSecs int64    `json:"expires_in_secs"`
	MemberUntil   *string  `json:"member_until"`
}

type memberView struct {
	ID        string   `json:"id"`
	Access    string   `json:"access"`
	Rights    []string `json:"rights"`
	Self      bool     `json:"self"`
	Connected bool     `json:"connected"`
	Ended     bool     `json:"ended"`
	JoinedAt  *string  `json:"joined_at"`
	ExpiresAt *string  `json:"expires_at"`
}

type assetView struct {
	// Digest is the SHA-256 of the content; Hash is the local CAN Service's own
	// hash for it, nil while it is not there.
	Digest      string   `json:"digest"`
	Hash        *string  `json:"hash"`
	Size        int64    `json:"size"`
	Timestamp   int64    `json:"timestamp"`
	MIMEType    string   `json:"mime_type"`
	Application string   `json:"application"`
	User        string   `json:"user"`
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	Filename    string   `json:"human_filename"`
	Path        string   `json:"human_path"`
	State       string   `json:"state"`
	Cause       *string  `json:"cause"`
	Detail      *string  `json:"detail"`
	// OfflineSince is since when the source is, with the cause source_offline.
	OfflineSince *string `json:"offline_since"`
}

type assetsView struct {
	Items []assetView `json:"items"`
	// Next is the value of after for the next page; nil on the last.
	Next *string `json:"next"`
}

type approvalsView struct {
	Items []approvalView `json:"items"`
	// Next is the value of after for the next page; nil on the last.
	Next *string `json:"next"`
}

type approvalView struct {
	Digest string `json:"digest"`
}

type decidedView struct {
	Library string   `json:"library"`
	Digests []string `json:"digests"`
}

type holderView struct {
	ID   string `json:"id"`
	Self bool   `json:"self"`
}

type leftView struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Purged bool   `json:"purged"`
}

type removedView struct {
	Library string `json:"library"`
	Digest  string `json:"digest"`
}

type eventView struct {
	Seq        uint64  `json:"seq"`
	Time       string  `json:"time"`
	Kind       string  `json:"kind"`
	Library    *string `json:"library"`
	Asset      *string `json:"asset"`
	Peer       *string `json:"peer"`
	Size       int64   `json:"size"`
	Total      int64   `json:"total"`
	Rate       int64   `json:"rate"`
	DurationMS float64 `json:"duration_ms"`
	Error      *string `json:"error"`
}

func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339)
	return &s
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func reason(err error) *string {
	if err == nil {
		return nil
	}
	return text(Plain(err))
}

// orEmpty makes a nil list an empty one, for JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// accessOf names an access in one word: "none" while a library is being joined.
func accessOf(a cansync.Access, owner bool) string {
	switch {
	case owner:
		return "owner"
	case a.Has(cansync.Write):
		return "write"
	case a.Has(cansync.Read):
		return "read"
	}
	return "none"
}

func rightsOf(a cansync.Access) []string {
	out := []string{}
	for _, r := range []struct {
		right cansync.Access
		name  string
	}{{cansync.Read, "read"}, {cansync.Write, "write"}, {cansync.Invite, "invite"}, {cansync.Admin, "admin"}} {
		if a.Has(r.right) {
			out = append(out, r.name)
		}
	}
	return out
}

func viewOf(ctx context.Context, l *cansync.Library) (libraryView, error) {
	s, err := l.Status(ctx)
	if err != nil {
		return libraryView{}, err
	}
	v := libraryView{
		ID: l.ID().String(), Name: l.Name(), Filter: l.Filter(), Access: accessOf(l.Access(), l.Owner()),
		Rights: rightsOf(l.Access()), State: string(s.State), Assets: s.Assets, Bytes: s.Bytes, Synced: s.Synced, Trashed: s.Trashed,
		Pending: s.Pending, Failed: s.Failed, Causes: s.Causes, Removed: s.Removed, Held: s.Held, Peers: s.Peers,
		ExpiresAt: stamp(s.Expires), Refused: reason(s.Refused), Mode: string(l.Mode()), View: l.View(),
		Publish: string(l.PublishMode()), DeletePolicy: string(l.DeletePolicy()), Limits: limitsOf(l.Limits()), Quota: l.Quota(),
	}
	if v.Causes == nil {
		v.Causes = map[cansync.Cause]int64{}
	}
	return v, nil
}

func assetViewOf(a cansync.Asset) assetView {
	return assetView{
		Digest: a.Digest.String(), Hash: text(a.Handle), Size: a.Size, Timestamp: a.Timestamp, MIMEType: a.MIMEType,
		Application: a.Application, User: a.User, Description: a.Description, Tags: orEmpty(a.Tags),
		Filename: a.Filename, Path: a.Path, State: string(a.State), Cause: text(string(a.Cause)), Detail: text(plain(a.Detail)),
		OfflineSince: stamp(a.OfflineSince),
	}
}

func eventViewOf(e cansync.Event) eventView {
	v := eventView{
		Seq: e.Seq, Time: e.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Kind: string(e.Kind), Size: e.Size, Total: e.Total, Rate: e.Rate,
		DurationMS: millis(e.Duration), Error: reason(e.Err),
	}
	if e.Library != (cansync.LibraryID{}) {
		v.Library = text(e.Library.String())
	}
	if !e.Asset.IsZero() {
		v.Asset = text(e.Asset.String())
	}
	if !e.Peer.IsZero() {
		v.Peer = text(e.Peer.String())
	}
	return v
}

// millis is a duration in milliseconds with three decimals.
func millis(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

// gone reports whether a library was left while it was being looked at.
func gone(err error) bool { return errors.Is(err, cansync.ErrNoLibrary) }

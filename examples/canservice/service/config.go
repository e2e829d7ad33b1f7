package service

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// HashRule says what an asset's hash is made of.
type HashRule string

const (
	// HashContent is the SHA-256 of the content; ingesting the same bytes again
	// answers the asset that is there. It is the default.
	HashContent HashRule = "content"
	// HashTimestamp is the SHA-256 of the content followed by the asset's
	// timestamp as eight big-endian bytes; the same bytes ingested twice are two
	// assets.
	HashTimestamp HashRule = "timestamp"
)

const (
	// DefaultVerifyInterval is the time between two verifications.
	DefaultVerifyInterval = 24 * time.Hour
	// DefaultRebuildErrorThreshold is how many files without readable metadata a
	// rebuild tolerates.
	DefaultRebuildErrorThreshold = 10
)

var (
	// ErrClosed says that the service was closed.
	ErrClosed = errors.New("canservice: closed")
	// ErrLocked says that another service runs on the same storage root.
	ErrLocked = errors.New("canservice: storage root is in use by another service")
	// ErrConfig says that the configuration can't be used.
	ErrConfig = errors.New("canservice: invalid configuration")
)

// Config configures a [Service]. Only StorageRoot is required.
type Config struct {
	// StorageRoot is the directory that holds everything; it is created with
	// mode 0700 if it is not there.
	StorageRoot string
	// AdminToken is the bearer token of the admin routes; they are refused when
	// it is empty.
	AdminToken string
	// NoThumbnailCache makes every thumbnail anew for each request.
	NoThumbnailCache bool
	// VerifyInterval is the time between two verifications of all content; 0
	// means [DefaultVerifyInterval], a negative value none.
	VerifyInterval time.Duration
	// RebuildErrorThreshold is how many files without readable metadata a rebuild
	// tolerates before it gives up and leaves the index as it was; 0 means
	// [DefaultRebuildErrorThreshold], a negative value none.
	RebuildErrorThreshold int
	// HashRule is [HashContent] when empty. A root may hold assets of both rules.
	HashRule HashRule
	// Durable flushes everything to the disk before an ingest, change or trash is
	// answered. See the package documentation for what holds without it.
	Durable bool
	// AllowedHosts are accepted in the Host header besides localhost and loopback
	// addresses, without port. Other hosts are refused, or any web page could
	// reach the service through a name of its own that resolves to 127.0.0.1.
	AllowedHosts []string
	// Logger takes the log; nil discards it.
	Logger *slog.Logger
	// Now is the clock for timestamps; nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	if c.StorageRoot == "" {
		return c, fmt.Errorf("%w: the storage root is empty", ErrConfig)
	}
	switch c.HashRule {
	case "":
		c.HashRule = HashContent
	case HashContent, HashTimestamp:
	default:
		return c, fmt.Errorf("%w: hash rule %q is neither %q nor %q", ErrConfig, c.HashRule, HashContent, HashTimestamp)
	}
	if c.VerifyInterval == 0 {
		c.VerifyInterval = DefaultVerifyInterval
	}
	if c.RebuildErrorThreshold == 0 {
		c.RebuildErrorThreshold = DefaultRebuildErrorThreshold
	}
	c.RebuildErrorThreshold = max(c.RebuildErrorThreshold, 0)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

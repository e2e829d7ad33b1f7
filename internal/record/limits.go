package record

import "time"

// The bounds of a record, in one place. All of them are part of the format: a
// record beyond one is malformed for every member, so that none accepts what
// another refuses.
const (
	// MaxBatch is the largest number of records under one signature. A path of
	// six digests is the most a record then carries, and announcing or checking
	// in bulk costs one signature operation per 64 records.
	MaxBatch = 64

	// MaxBody is the largest body in bytes. It holds all that a CAN Service
	// sensibly keeps about one asset, and lets dozens of records share a frame.
	MaxBody = 16 << 10

	// MaxName bounds MIME type, application, user and file name, in bytes. File
	// systems stop at 255 and RFC 6838 media types at 255 before parameters.
	MaxName = 1 << 10

	// MaxPath bounds the human-readable path, in bytes: PATH_MAX on Linux.
	MaxPath = 4 << 10

	// MaxDescription bounds the description, in bytes: two printed pages of text.
	MaxDescription = 8 << 10

	// MaxTags and MaxTag bound the number of tags and the bytes of each.
	MaxTags = 256
	MaxTag  = 256

	// MaxFuture is how far ahead of a reader's own time a record's clock may be.
	// It forgives badly set clocks and keeps anyone from winning for ever with a
	// date far in the future.
	MaxFuture = 10 * time.Minute

	// HeaderSize is the length of an encoded header in bytes.
	HeaderSize = 1 + 1 + 8 + 5*32

	// MaxSize is the length of the largest encoded record in bytes.
	MaxSize = 1 + HeaderSize + proofSize + maxPath*32 + 4 + MaxBody

	proofSize = 1 + 1 + 64 // index, count, signature
	maxPath   = 6          // log2 of MaxBatch
)

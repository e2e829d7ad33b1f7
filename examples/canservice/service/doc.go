// Package service is the reference CAN Service: a content-addressable store of
// assets behind an HTTP API, kept in one directory.
//
// # On disk
//
// The storage root holds
//
//	{timestamp}_{hash}         the content of one asset
//	{timestamp}_{hash}.json    its metadata, from which the index can be rebuilt
//	.trash/                    the same two files of trashed assets
//	.thumbs/                   cached thumbnails; may be deleted at any time
//	.can.db                    the SQLite index (with -wal and -shm beside it)
//	.can.lock                  locked while a service runs on this root
//	.tmp-*                     content being received; removed on open
//
// Whether an asset is trashed is told by where its content lies, so the index
// holds nothing that the files don't tell, save for marks of corruption (found
// again by verification) and change numbers.
//
// # Durability
//
// Content is written to a temporary file in the root and hashed on the way,
// renamed to its name, and then committed to the index; commits of parallel
// requests share one transaction. An answer is sent only after the commit.
//
// By default the index runs with synchronous=NORMAL and content is not flushed
// before the answer: killing the process loses nothing that was answered, and
// the file system is flushed within about two seconds. After a power cut Open
// finds the last flush recorded in the index, reads every file written since
// again and marks what does not match its hash as corrupted, so that nothing
// wrong is served. With Config.Durable, content, metadata, directory and index
// are flushed before the answer.
//
// Open removes leftovers of interrupted requests, takes files into the index
// that it lacks, and marks assets whose content is gone as corrupted. An index
// that can't be read is moved aside and built anew from the files.
package service

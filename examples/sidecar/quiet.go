package main

import (
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// quiet sets what a process has one of: the loggers of the libraries below
// cansync. They say a lot that concerns their authors, so only their warnings are
// shown, and of libp2p only errors, or all that is asked for at level debug: to libp2p
// each stranger that hangs up in mid-sentence is worth a warning. It must run before
// they log.
func quiet(w io.Writer, level slog.Level) {
	libp2p := level
	if level > slog.LevelDebug {
		level, libp2p = max(level, slog.LevelWarn), max(level, slog.LevelError)
	}
	handler := slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	gologshim.SetDefaultHandler(slog.NewTextHandler(w, &slog.HandlerOptions{Level: libp2p}))
	// These go past slog; what matters of them cansync reports itself.
	golog.SetupLogging(golog.Config{Level: golog.LevelFatal})
	slog.SetDefault(slog.New(handler))
	slog.SetLogLoggerLevel(slog.LevelDebug)
}

// memoryLimit is the size in bytes from which the garbage collector works harder.
const memoryLimit = 256 << 20

// limitMemory sets a soft limit unless the user set one.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

package main

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/stretchr/testify/require"
)

func TestWarningsOfLibp2pShowAtLevelDebugOnly(t *testing.T) {
	before := slog.Default()
	defer func() { slog.SetDefault(before) }()
	for level, warns := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false, slog.LevelWarn: false} {
		var out bytes.Buffer
		quiet(&out, level)
		log := gologshim.Logger("test " + level.String())
		log.Warn("failed to identify peer")
		require.Equal(t, warns, out.Len() > 0, "%s: %s", level, out.String())
		log.Error("no more files")
		require.Contains(t, out.String(), "no more files")
		slog.Warn("another library's")
		require.Contains(t, out.String(), "another library's")
	}
}

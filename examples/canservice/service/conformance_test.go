package service

import (
	"testing"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/stretchr/testify/require"
)

func TestConformance(t *testing.T) {
	for _, rule := range []HashRule{HashContent, HashTimestamp} {
		t.Run(string(rule), func(t *testing.T) {
			cantest.Run(t, func(t *testing.T) can.Client {
				ts := start(t, Config{HashRule: rule})
				c, err := can.NewHTTPClient(ts.srv.URL+Prefix, can.HTTPOptions{})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, c.Close()) })
				return c
			}, cantest.Suite{Strict: true, Deduplicates: rule == HashContent})
		})
	}
}

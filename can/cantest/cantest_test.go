package cantest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	clients := map[string]func(*testing.T, *cantest.Service) can.Client{
		"in process": func(_ *testing.T, s *cantest.Service) can.Client { return s },
		"core":       func(_ *testing.T, s *cantest.Service) can.Client { return s.Core() },
		"round tripper": func(t *testing.T, s *cantest.Service) can.Client {
			return overHTTP(t, "http://can.test", s.RoundTripper())
		},
		"sockets": func(t *testing.T, s *cantest.Service) can.Client {
			srv := httptest.NewServer(s.Handler())
			t.Cleanup(srv.Close)
			return overHTTP(t, srv.URL, nil)
		},
	}
	for name, client := range clients {
		for _, rule := range []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom} {
			for kind, lacks := range map[string]cantest.Features{"whole": 0, "minimal": cantest.AllFeatures} {
				if name == "core" && rule != cantest.HashContent {
					continue // the same code as in process
				}
				t.Run(name+"/"+rule.String()+"/"+kind, func(t *testing.T) {
					t.Parallel()
					cantest.Run(t, func(t *testing.T) can.Client {
						s := cantest.New(cantest.Options{Rule: rule, Lacks: lacks, PageCap: 9})
						t.Cleanup(func() { require.NoError(t, s.Close()) })
						return client(t, s)
					}, cantest.Suite{Deduplicates: rule == cantest.HashContent, Strict: true, MaxContent: 100_000})
				})
			}
		}
	}
}

func overHTTP(t *testing.T, url string, rt http.RoundTripper) *can.HTTPClient {
	c, err := can.NewHTTPClient(url, can.HTTPOptions{Transport: rt})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

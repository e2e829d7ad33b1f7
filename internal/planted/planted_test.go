package planted

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bug is a mistake that someone could make.
type bug struct {
	name string
	file string // below the module's root
	// old occurs once in the file and is replaced by new.
	old, new string
	// pkg has the test that finds it, the pattern of go test -run.
	pkg, test string
}

var bugs = []bug{
	{
		"the earlier record wins", "internal/record/header.go",
		"cmp.Compare(a.Clock, b.Clock)", "cmp.Compare(b.Clock, a.Clock)",
		"internal/record", "^TestAnEditBeatsALaterFirstAnnouncement$",
	},
	{
		"what a peer changed is announced as an edit", "internal/announce/decide.go",
		"case same(e.Body, s.body):\n\t\t\treturn agree\n\t\tcase s.may:", "case s.may:",
		"internal/announce", "^TestDecide$",
	},
	{
		"no brake on removals", "internal/announce/decide.go",
		"return removals > maxRemovals || removals > 1 && int64(removals)*2 > live", "return false",
		"internal/announce", "^TestBrake$",
	},
	{
		"records of others are not forwarded", "internal/session/manager.go",
		"if peer != ap.From && p.link != nil {", "if peer != ap.From && ap.From.IsZero() && p.link != nil {",
		"internal/session", "^TestACrowdIsSparseAndHearsAll$",
	},
	{
		"symbols without checksum", "internal/reconcile/decode.go",
		"if check != c.check {", "if false {",
		"internal/reconcile", "^TestDamagedSetIsSeenThrough$",
	},
	{
		"members are shown what lies outside their view", "internal/replica/view.go",
		"e.Live.HasBody() && v.Match(e.Asset, e.Body.Metadata())", "e.Live.HasBody()",
		"internal/library", "^TestANarrowerViewHearsOnlyOfItsOwn$",
	},
	{
		"what left the view of the peer is sent whole", "internal/session/view.go",
		"return s.Show(r, e), nil", "_ = e\n\treturn r, nil",
		"internal/session", "^TestMetadataOutsideAViewIsNotSent$",
	},
	{
		"nobody is told what was said outside the own view", "internal/replica/owed.go",
		"case !is && (was || c.gain):", "case false:",
		"internal/library", "^TestANarrowMemberOwesWhatItSaidElsewhere$",
	},
	{
		"a header takes the place of a whole record", "internal/replica/apply.go",
		"if at = bare; bare >= 0 &&", "if at = max(bare, full); bare >= 0 &&",
		"internal/replica", "^TestAHeaderTakesThePlaceOfNothingWhole$",
	},
	{
		"records from the future are taken", "internal/record/clock.go",
		"return h.Clock.Milli() > now.Add(MaxFuture).UnixMilli()", "return false",
		"internal/record", "^TestDeferred$",
	},
	{
		"proofs are not checked", "internal/blob/verify.go",
		"return nil, ErrProof", "return nil, nil",
		"internal/blob", "^TestMutationsAreFound$",
	},
	{
		"an ingest of unknown outcome is sent again", "internal/ingest/post.go",
		"case can.OutcomeUnknown:\n\t\treturn g.unclear(ctx, in, fmt.Errorf(\"%w: %w\", ErrUnknown, err))", "case can.OutcomeUnknown:\n\t\treturn Result{}, errors.Join(refusal(ctx, err), g.abandon(ctx, job.Digest))",
		"internal/ingest", "^TestAmbiguousIngestsAreLookedFor$",
	},
}

func TestEachBugIsFound(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	run := bugs
	if testing.Short() {
		run = bugs[:2]
	}
	for _, b := range run {
		t.Run(b.name, func(t *testing.T) {
			file := filepath.Join(root, filepath.FromSlash(b.file))
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(src), b.old), "the place for the bug in %s", b.file)
			dir := t.TempDir()
			spoilt, overlay := filepath.Join(dir, "spoilt.go"), filepath.Join(dir, "overlay.json")
			require.NoError(t, os.WriteFile(spoilt, []byte(strings.Replace(string(src), b.old, b.new, 1)), 0o600))
			spec, err := json.Marshal(map[string]map[string]string{"Replace": {file: spoilt}})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(overlay, spec, 0o600))

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-overlay", overlay, "-timeout", "2m", "-run", b.test, "./"+b.pkg)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s in %s does not find the bug:\n%s", b.test, b.pkg, out)
			// A program that does not compile finds nothing.
			require.Contains(t, string(out), "--- FAIL: Test", "%s in %s failed otherwise:\n%s", b.test, b.pkg, out)
		})
	}
}

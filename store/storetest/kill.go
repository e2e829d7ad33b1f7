package storetest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/store"
)

// childEnv tells a process started by testKill which directory to write to.
const childEnv = "CANSYNC_STORETEST_CHILD"

const writers = 4

func testReopen(t *testing.T, c Config) {
	dir := t.TempDir()
	s := c.Open(t, dir)
	put(t, s, "/put", "1")
	x := begin(t, s, false)
	put(t, x, "/txn", "1")
	require.NoError(t, x.Commit(ctx))
	b, err := s.Batch(ctx)
	require.NoError(t, err)
	put(t, b, "/batch", "1")
	require.NoError(t, b.Commit(ctx))
	lost := begin(t, s, false)
	put(t, lost, "/lost", "1")
	unfinished, err := s.Batch(ctx)
	require.NoError(t, err)
	put(t, unfinished, "/unfinished", "1")
	require.NoError(t, s.Close())

	s = c.Open(t, dir)
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, []string{"/batch", "/put", "/txn"}, keys(t, s, query.Query{Orders: []query.Order{query.OrderByKey{}}}))
	require.NoError(t, s.Delete(ctx, key("/put")))
	require.NoError(t, s.Close())
	s = c.Open(t, dir)
	hasNot(t, s, "/put")
	has(t, s, "/txn", "1")
}

// testKill starts processes that commit and say so, kills them, and looks for
// all that was acknowledged.
func testKill(t *testing.T, c Config) {
	top, _, _ := strings.Cut(t.Name(), "/")
	dir := t.TempDir()
	kills, total := c.Kills, 0
	if kills == 0 {
		kills = 3
	}
	killed := 0
	for i := range kills {
		acked, byKill := runChild(t, top, dir, 200*(i+1))
		if byKill {
			killed++
		}
		s := c.Open(t, dir)
		for w, n := range acked {
			total++
			checkWriter(t, s, w, n)
		}
		require.NoError(t, s.Close())
	}
	require.Equal(t, kills, killed)
	require.Equal(t, kills*writers, total, "every writer must have got something acknowledged")
}

// runChild returns the last commit acknowledged by each writer.
func runChild(t *testing.T, top, dir string, acks int) (map[int]int, bool) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+top+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stuck := time.AfterFunc(50*time.Second, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	acked := make(map[int]int)
	r := bufio.NewReader(out)
	seen := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil { // what is left is half a line
			require.ErrorIs(t, err, io.EOF)
			break
		}
		var w, n int
		if _, err := fmt.Sscanf(line, "ack %d %d\n", &w, &n); err != nil {
			continue // the testing package's own words
		}
		acked[w] = n
		if seen++; seen >= acks && len(acked) == writers {
			_ = cmd.Process.Kill() // and read what it still managed to say
		}
	}
	_ = cmd.Wait()
	require.GreaterOrEqual(t, seen, acks)
	return acked, cmd.ProcessState.ExitCode() == -1 && !cmd.ProcessState.Success()
}

// checkWriter checks that a writer's commits are there without gap up to at least
// the one acknowledged last, and each of them as a whole.
func checkWriter(t *testing.T, s store.Store, w, acked int) {
	v, err := s.Get(ctx, key(fmt.Sprintf("/last/%d", w)))
	require.NoError(t, err)
	last, err := strconv.Atoi(string(v))
	require.NoError(t, err)
	require.GreaterOrEqual(t, last, acked, "an acknowledged commit is lost")
	require.LessOrEqual(t, last, acked+1, "a writer has one commit under way")
	for n := 1; n <= last; n++ {
		has(t, s, fmt.Sprintf("/w/%d/%d", w, n), strings.Repeat(strconv.Itoa(n), 50))
	}
	hasNot(t, s, fmt.Sprintf("/w/%d/%d", w, last+1))
}

// child commits until it is killed.
func child(t *testing.T, c Config, dir string) {
	s := c.Open(t, dir)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			last := 0
			if v, err := s.Get(ctx, key(fmt.Sprintf("/last/%d", w))); err == nil {
				last, _ = strconv.Atoi(string(v))
			}
			for n := last + 1; ; n++ {
				if err := commitBoth(s, w, n); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Printf("ack %d %d\n", w, n)
			}
		})
	}
	wg.Wait()
	t.Fatal("a writer ended by itself")
}

func commitBoth(s store.Store, w, n int) error {
	x, err := s.NewTransaction(ctx, false)
	if err != nil {
		return err
	}
	defer x.Discard(ctx)
	v := []byte(strings.Repeat(strconv.Itoa(n), 50))
	if err := x.Put(ctx, key(fmt.Sprintf("/w/%d/%d", w, n)), v); err != nil {
		return err
	}
	if err := x.Put(ctx, key(fmt.Sprintf("/last/%d", w)), []byte(strconv.Itoa(n))); err != nil {
		return err
	}
	return x.Commit(ctx)
}

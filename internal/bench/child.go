package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"time"
)

// childArg makes the program one of its own children.
const childArg = "-child"

// child is another process of this program, playing a role. It is asked one thing
// at a time, in lines of JSON on its standard input and output, and ends when its
// input does.
type child struct {
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	dec     *json.Decoder
	profile string
	once    sync.Once
	err     error
}

type request struct {
	Method string          `json:"method"`
	Arg    json.RawMessage `json:"arg,omitempty"`
}

type response struct {
	Err   string          `json:"err,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

// spawn starts a process in a role. The name is for the report.
func (e *env) spawn(role, name string, setup any) (*child, error) {
	arg, err := json.Marshal(setup)
	if err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	if e.verbose {
		level = slog.LevelDebug
	}
	cmd := exec.Command(e.exe, childArg, role, string(arg), level.String())
	cmd.Stderr = os.Stderr
	detach(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: cmd, in: in, dec: json.NewDecoder(out)}
	e.spawned++
	if e.profile != "" {
		c.profile = filepath.Join(e.profile, fmt.Sprintf("%s-%02d-%s", e.budget, e.spawned, strings.ReplaceAll(name, " ", "-")))
	}
	e.kids = append(e.kids, c)
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// call asks the child and waits for its answer. A call that ctx cuts off ends the
// child.
func (c *child) call(ctx context.Context, method string, arg, reply any) error {
	fail := func(err error) error { return fmt.Errorf("%s: %s: %w", c.name, method, err) }
	raw, err := json.Marshal(arg)
	if err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer stop()
	var r response
	if err := json.NewEncoder(c.in).Encode(request{method, raw}); err == nil {
		err = c.dec.Decode(&r)
		if err != nil {
			return fail(errors.Join(err, ctx.Err()))
		}
	} else {
		return fail(errors.Join(err, ctx.Err()))
	}
	if r.Err != "" {
		return fail(errors.New(r.Err))
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(r.Value, reply); err != nil {
		return fail(err)
	}
	return nil
}

// start begins a CPU profile where profiles were asked for.
func (c *child) start(ctx context.Context) error {
	if c.profile == "" {
		return nil
	}
	return c.call(ctx, "profile", c.profile, nil)
}

// finish ends the CPU profile and writes a heap profile.
func (c *child) finish(ctx context.Context) error {
	if c.profile == "" {
		return nil
	}
	return c.call(ctx, "profiled", c.profile, nil)
}

// close ends the child and waits for it. It may be called again.
func (c *child) close() error {
	c.once.Do(func() {
		_ = c.in.Close()
		t := time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() })
		defer t.Stop()
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("%s: %w", c.name, err)
		}
	})
	return c.err
}

// role is what a child can do.
type role struct {
	methods map[string]func(context.Context, json.RawMessage) (any, error)
	close   func() error
}

// method adapts a function to what a role needs.
func method[A, R any](fn func(context.Context, A) (R, error)) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var a A
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, err
		}
		return fn(ctx, a)
	}
}

// none stands for no argument or no value.
type none struct{}

// opening opens a role with its setup in JSON.
type opening func(ctx context.Context, log *slog.Logger, setup []byte) (*role, error)

// opener makes a role from its setup.
func opener[S any](fn func(context.Context, *slog.Logger, S) (*role, error)) opening {
	return func(ctx context.Context, log *slog.Logger, raw []byte) (*role, error) {
		var s S
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		return fn(ctx, log, s)
	}
}

func roles() map[string]opening {
	return map[string]opening{
		"records":    opener(openRecords),
		"service":    opener(openService),
		"node":       opener(openNode),
		"copy":       opener(openCopy),
		"pair":       opener(openPair),
		"seed":       opener(openSeed),
		"engine":     opener(openEngine),
		"tls-server": opener(openTLSServer),
		"tls-client": opener(openTLSClient),
	}
}

// childMain plays a role until standard input ends.
func childMain(args []string) int {
	if err := playRole(args); err != nil {
		fmt.Fprintln(os.Stderr, "bench child:", err)
		return 1
	}
	return 0
}

func playRole(args []string) (err error) {
	if len(args) != 3 {
		return errors.New("want a role, its setup and a log level")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(args[2])); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("pid", os.Getpid())
	open := roles()[args[0]]
	if open == nil {
		return fmt.Errorf("no role %q", args[0])
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := open(ctx, log, []byte(args[1]))
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.methods["profile"] = method(startProfile)
	r.methods["profiled"] = method(endProfile)
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var q request
		switch err := dec.Decode(&q); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := enc.Encode(answer(ctx, r, q)); err != nil {
			return err
		}
	}
}

func answer(ctx context.Context, r *role, q request) response {
	fn := r.methods[q.Method]
	if fn == nil {
		return response{Err: "no such method"}
	}
	v, err := fn(ctx, q.Arg)
	if err != nil {
		return response{Err: err.Error()}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return response{Err: err.Error()}
	}
	return response{Value: raw}
}

func startProfile(_ context.Context, name string) (none, error) {
	f, err := os.Create(name + ".cpu.pprof")
	if err != nil {
		return none{}, err
	}
	return none{}, pprof.StartCPUProfile(f)
}

func endProfile(_ context.Context, name string) (none, error) {
	pprof.StopCPUProfile()
	f, err := os.Create(name + ".heap.pprof")
	if err != nil {
		return none{}, err
	}
	defer func() { _ = f.Close() }()
	runtime.GC() // the heap profile is as of the last collection
	return none{}, pprof.WriteHeapProfile(f)
}

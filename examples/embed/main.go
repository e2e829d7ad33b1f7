// Command embed shows how a Go service that already keeps something, here a small
// notebook, shares it through cansync inside its own process:
//
//   - notes.go is the service as it was before: notes in memory, behind HTTP;
//   - client.go is what it takes to connect it: a can.Client of one's own;
//   - this file starts a node on that client, and makes and redeems a ticket.
//
// Without flags it runs two such services in one process, writes a note into each
// and shows that both have both. As two processes:
//
//	embed -http 127.0.0.1:8081 -invite ticket.txt
//	embed -http 127.0.0.1:8082 -join ticket.txt
//	curl -d 'milk, eggs' 'http://127.0.0.1:8081/notes?title=shopping&by=ann'
//	curl http://127.0.0.1:8082/notes
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/store/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		stop()
		os.Exit(1) //nolint:gocritic // the deferred stop was called
	}
}

// newNode starts a node beside a notebook.
//
// The notes of this example die with the process, so what the node knows of them
// lives in memory too. A host whose data survives gives a DataDir in place of the
// Store, which keeps the node's identity, its libraries and its queue.
func newNode(ctx context.Context, book *notebook) (*cansync.Node, error) {
	return cansync.New(ctx, cansync.Config{
		CAN:   client{book},
		Store: memory.New(),
		// This machine only. The default reaches peers anywhere: leave both out.
		Network: cansync.LAN,
		Listen:  []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
	})
}

// shared is which notes are shared: those that this application made.
var shared = cansync.Filter{Application: "notes"}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("embed", flag.ContinueOnError)
	flags.SetOutput(out)
	addr := flags.String("http", "", "serve the notebook at this `address`; empty runs two notebooks in one process")
	invite := flags.String("invite", "", "create a library and write a ticket for it to this `file`")
	join := flags.String("join", "", "join with the ticket in this `file`")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *addr == "" && (*invite != "" || *join != ""):
		return errors.New("-invite and -join need -http")
	case *addr == "":
		return demo(ctx, out)
	case (*invite == "") == (*join == ""):
		return errors.New("one of -invite and -join is required")
	}
	return serve(ctx, *addr, *invite, *join, out)
}

// demo runs two notebooks with a node each.
func demo(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	// Two services, each with a node beside it.
	ann, ben := newNotebook(), newNotebook()
	annNode, err := newNode(ctx, ann)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, annNode.Close()) }()
	benNode, err := newNode(ctx, ben)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, benNode.Close()) }()

	// Ann makes a library and invites; Ben joins with the ticket. A ticket is a
	// secret, so that printing it shows a placeholder.
	lib, err := annNode.CreateLibrary(ctx, "our notes", shared)
	if err != nil {
		return err
	}
	ticket, err := lib.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Ann invites to %q: %v\n", lib.Name(), ticket)
	if _, err := benNode.Join(ctx, ticket); err != nil {
		return err
	}

	// Each writes a note in the service's own way, and each gets the other's.
	ann.add(note{Title: "shopping", By: "ann", Kind: "text/plain", App: "notes", Time: time.Now(), text: []byte("milk, eggs")})
	ben.add(note{Title: "tonight", By: "ben", Kind: "text/plain", App: "notes", Time: time.Now(), text: []byte("back at eight")})
	ann.add(note{Title: "diary", By: "ann", Kind: "text/plain", App: "diary", Time: time.Now(), text: []byte("not for Ben")})
	if err := until(ctx, ben, "shopping"); err != nil {
		return err
	}
	if err := until(ctx, ann, "tonight"); err != nil {
		return err
	}
	for _, who := range []struct {
		name string
		book *notebook
	}{{"Ann", ann}, {"Ben", ben}} {
		notes, _ := who.book.page(0, defaultPage, false)
		fmt.Fprintf(out, "%s has:\n", who.name)
		for _, n := range notes {
			fmt.Fprintf(out, "  %-10s by %s: %s\n", n.Title, n.By, n.text)
		}
	}
	return nil
}

// until waits for a note of the title.
func until(ctx context.Context, book *notebook, title string) error {
	for {
		changed := book.next()
		notes, _ := book.page(0, defaultPage, true)
		for _, n := range notes {
			if n.Title == title {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the note %q did not arrive: %w", title, ctx.Err())
		}
	}
}

// serve runs one notebook with a node until ctx ends.
func serve(ctx context.Context, addr, invite, join string, out io.Writer) (err error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer ln.Close() // closed before by Shutdown
	book := newNotebook()
	node, err := newNode(ctx, book)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if err := enter(ctx, node, invite, join); err != nil {
		return err
	}

	srv := &http.Server{Handler: http.NewCrossOriginProtection().Handler(book), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Fprintf(out, "notes at http://%s/notes\n", ln.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if srv.Shutdown(sctx) != nil {
		_ = srv.Close() // whoever still reads is cut off
	}
	<-served
	return nil
}

// enter makes a library and a ticket, or joins with one. The ticket goes by file,
// readable by its owner alone: on a command line other users could see it.
func enter(ctx context.Context, node *cansync.Node, invite, join string) error {
	if join != "" {
		text, err := os.ReadFile(join)
		if err != nil {
			return err
		}
		ticket, err := cansync.ParseTicket(strings.TrimSpace(string(text)))
		if err != nil {
			return err
		}
		_, err = node.Join(ctx, ticket)
		return err
	}
	lib, err := node.CreateLibrary(ctx, "our notes", shared)
	if err != nil {
		return err
	}
	ticket, err := lib.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return err
	}
	text, err := ticket.ExportSecret()
	if err != nil {
		return err
	}
	// A file that is there might be readable by others and would stay so.
	if err := os.Remove(invite); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(invite, []byte(text+"\n"), 0o600)
}

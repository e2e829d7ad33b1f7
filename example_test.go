package cansync_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	smemory "github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport/memory"
)

// within bounds the examples that wait.
func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// startOn starts a node beside a service, on an in-memory network. A program would
// give a DataDir instead of the Store, and no Transport.
func startOn(ctx context.Context, net *memory.Network, svc can.Client) *cansync.Node {
	node, err := cansync.New(ctx, cansync.Config{CAN: svc, Store: smemory.New(), Transport: hostOn(net)})
	if err != nil {
		log.Fatal(err)
	}
	return node
}

// A node needs a client of the local CAN Service and a place for its data.
// Everything else has a default; here store and transport are in memory.
func ExampleNew() {
	ctx, cancel := within()
	defer cancel()
	service := cantest.New(cantest.Options{}) // can.NewHTTPClient reaches a real one
	defer service.Close()

	node, err := cansync.New(ctx, cansync.Config{
		CAN:       service,
		Store:     smemory.New(),
		Transport: hostOn(memory.NewNetwork(memory.Options{})),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	fmt.Println("libraries:", len(node.Libraries()))
	// Output: libraries: 0
}

func ExampleNode_CreateLibrary() {
	ctx, cancel := within()
	defer cancel()
	service := cantest.New(cantest.Options{})
	defer service.Close()
	service.Add([]byte("GIF89a…"), can.Metadata{MIMEType: "image/gif"})
	service.Add([]byte("a letter"), can.Metadata{MIMEType: "text/plain"})
	node := startOn(ctx, memory.NewNetwork(memory.Options{}), service)
	defer node.Close()

	filter := cansync.Filter{MIMEPrefix: "image/"}
	preview, err := node.Preview(ctx, filter)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("would share:", preview.Matches)

	lib, err := node.CreateLibrary(ctx, "photos", filter)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lib.Name(), lib.Filter().MIMEPrefix, lib.Owner())
	// Output:
	// would share: 1
	// photos image/ true
}

// A ticket is a secret. Printing it shows a placeholder; its text is exported
// deliberately, to be handed on.
func ExampleLibrary_Invite() {
	ctx, cancel := within()
	defer cancel()
	service := cantest.New(cantest.Options{})
	defer service.Close()
	node := startOn(ctx, memory.NewNetwork(memory.Options{}), service)
	defer node.Close()
	lib, err := node.CreateLibrary(ctx, "photos", cansync.Filter{MIMEPrefix: "image/"})
	if err != nil {
		log.Fatal(err)
	}

	ticket, err := lib.Invite(ctx, cansync.InviteOptions{Access: cansync.Read, ValidFor: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	text, err := ticket.ExportSecret()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ticket)
	fmt.Println(ticket.Access())
	fmt.Println(text[:8])
	// Output:
	// cansync1…(redacted)
	// read
	// cansync1
}

// Two nodes share a library: what is added to one service arrives in the other.
func ExampleNode_Join() {
	ctx, cancel := within()
	defer cancel()
	net := memory.NewNetwork(memory.Options{})
	here, there := cantest.New(cantest.Options{}), cantest.New(cantest.Options{})
	defer here.Close()
	defer there.Close()
	ann, ben := startOn(ctx, net, here), startOn(ctx, net, there)
	defer ann.Close()
	defer ben.Close()
	here.Add([]byte("GIF89a…"), can.Metadata{MIMEType: "image/gif", Filename: "sea.gif", Tags: []string{"holiday"}})

	lib, err := ann.CreateLibrary(ctx, "photos", cansync.Filter{MIMEPrefix: "image/"})
	if err != nil {
		log.Fatal(err)
	}
	ticket, err := lib.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		log.Fatal(err)
	}

	events := ben.Events(ctx) // from now on
	joined, err := ben.Join(ctx, ticket)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("joining:", joined.Name())
	for e := range events {
		if e.Kind == cansync.EventFetched {
			break
		}
	}
	page, err := there.List(ctx, can.ListOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range page.Assets {
		fmt.Println(a.Filename, a.Tags)
	}
	// Output:
	// joining: photos
	// sea.gif [holiday]
}

func ExampleNode_Events() {
	ctx, cancel := within()
	defer cancel()
	service := cantest.New(cantest.Options{})
	defer service.Close()
	node := startOn(ctx, memory.NewNetwork(memory.Options{}), service)
	defer node.Close()

	events := node.Events(ctx) // before what is to be seen
	if _, err := node.CreateLibrary(ctx, "letters", cansync.Filter{}); err != nil {
		log.Fatal(err)
	}
	service.Add([]byte("Dear Ann"), can.Metadata{MIMEType: "text/plain"})
	node.Poll() // for services that do not report changes themselves

	for e := range events {
		if e.Kind == cansync.EventAnnounced {
			fmt.Println(e.Kind, e.Asset.String()[:8])
			break
		}
	}
	// Output: announced 72639eff
}

func ExampleLibrary_Assets() {
	ctx, cancel := within()
	defer cancel()
	service := cantest.New(cantest.Options{})
	defer service.Close()
	service.Add([]byte("Dear Ann"), can.Metadata{MIMEType: "text/plain", Filename: "letter.txt"})
	node := startOn(ctx, memory.NewNetwork(memory.Options{}), service)
	defer node.Close()

	events := node.Events(ctx)
	lib, err := node.CreateLibrary(ctx, "letters", cansync.Filter{MIMEPrefix: "text/"})
	if err != nil {
		log.Fatal(err)
	}
	for e := range events {
		if e.Kind == cansync.EventAnnounced {
			break
		}
	}
	for a, err := range lib.Assets(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(a.Filename, a.Size, a.State)
	}
	// Output: letter.txt 8 have
}

func ExampleFilter_Match() {
	filter := cansync.Filter{MIMEPrefix: "image/", Tags: []string{"holiday", "family"}}
	digest := can.Digest(sha256.Sum256([]byte("GIF89a…")))
	for _, m := range []can.Metadata{
		{MIMEType: "image/gif", Tags: []string{"holiday", "sea"}},
		{MIMEType: "image/gif", Tags: []string{"work"}},
		{MIMEType: "text/plain", Tags: []string{"holiday"}},
	} {
		fmt.Println(filter.Match(digest, m))
	}
	fmt.Println("everything:", cansync.Filter{}.Match(digest, can.Metadata{}))
	// Output:
	// true
	// false
	// false
	// everything: true
}

func ExampleParseTicket() {
	ctx, cancel := within()
	defer cancel()
	service := cantest.New(cantest.Options{})
	defer service.Close()
	node := startOn(ctx, memory.NewNetwork(memory.Options{}), service)
	defer node.Close()
	text := ticketFor(ctx, node)

	// Text that users paste may have white space around it.
	ticket, err := cansync.ParseTicket("\n  " + text + "\n")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ticket.Name(), ticket.Filter().MIMEPrefix, ticket.Access())

	// A change of any single character is found, without asking anyone.
	_, err = cansync.ParseTicket(text[:50] + text[51:])
	fmt.Println(err != nil)
	// Output:
	// photos image/ read,write,invite
	// true
}

// ticketFor makes a library and returns the text of a ticket for it.
func ticketFor(ctx context.Context, node *cansync.Node) string {
	lib, err := node.CreateLibrary(ctx, "photos", cansync.Filter{MIMEPrefix: "image/"})
	if err != nil {
		log.Fatal(err)
	}
	ticket, err := lib.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		log.Fatal(err)
	}
	text, err := ticket.ExportSecret()
	if err != nil {
		log.Fatal(err)
	}
	return text
}

func ExampleLibrary_Wait() {
	ctx, cancel := within()
	defer cancel()
	net := memory.NewNetwork(memory.Options{})
	here, there := cantest.New(cantest.Options{}), cantest.New(cantest.Options{})
	defer here.Close()
	defer there.Close()
	ann, ben := startOn(ctx, net, here), startOn(ctx, net, there)
	defer ann.Close()
	defer ben.Close()

	ticket, err := cansync.ParseTicket(ticketFor(ctx, ann))
	if err != nil {
		log.Fatal(err)
	}
	lib, err := ben.Join(ctx, ticket)
	if err != nil {
		log.Fatal(err)
	}
	if err := lib.Wait(ctx); err != nil { // until all that is known of is here
		log.Fatal(err)
	}
	status, err := lib.Status(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.State, status.Pending)
	// Output: synced 0
}

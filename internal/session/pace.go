package session

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/cansync/cansync/transport"
)

// What a member may make a node do is bounded by its kind of request. What an
// honest one asks for stays well below: it asks for a reconciliation at most every 2
// seconds, opens as many, and tells of a view at most every 5. Whoever exceeds that
// breaks the protocol.
const (
	roundGap = 2 * time.Second // between reconciliations that the node begins on a link
	viewGap  = 5 * time.Second // between two views told on a link

	resyncEach, resyncBurst = time.Second, 30
	roundEach, roundBurst   = time.Second / 2, 120 // of control and assets, and after bulk streams
	viewEach, viewBurst     = 4 * time.Second, 12
	askRate, askBurst       = 4096, 65536 // digests; beyond, the answer waits
	offerRate, offerBurst   = 8192, 65536 // ids of records; beyond, the answer waits

	// In which as many as a question and an offer have become free.
	askLater  = maxAsk * time.Second / askRate
	offerWait = maxOffer * time.Second / offerRate

	roundStall = 5 * time.Minute // without progress in a reconciliation

	// What each new link asks for anyway. It is not counted, or an honest peer on a
	// network that breaks every second would look like one who floods; how often links
	// may come is the hello's to bound.
	linkResyncs, linkRounds, linkViews = 2, 8, 1
)

// outset is what a link may still ask for without its being counted.
type outset struct{ resyncs, rounds, views int }

func newOutset() outset { return outset{linkResyncs, linkRounds, linkViews} }

// pace counts what one peer asked for in one library, on all its links. It is safe
// for concurrent use.
type pace struct{ resyncs, rounds, views, asks, offers *rate.Limiter }

func newPace() *pace {
	return &pace{
		resyncs: rate.NewLimiter(rate.Every(resyncEach), resyncBurst), rounds: rate.NewLimiter(rate.Every(roundEach), roundBurst),
		views: rate.NewLimiter(rate.Every(viewEach), viewBurst), asks: rate.NewLimiter(askRate, askBurst),
		offers: rate.NewLimiter(offerRate, offerBurst),
	}
}

// allow takes one off what comes with the link, or else off a limit; its error says
// that the peer asks too often.
func allow(free *int, l *rate.Limiter, what string) error {
	if *free > 0 {
		*free--
		return nil
	}
	if l.AllowN(time.Now(), 1) {
		return nil
	}
	return fmt.Errorf("%w: too many %s", errPeer, what)
}

// paceLocked returns what is counted of a peer. When too many are remembered, one
// that has no link is forgotten.
func (e *entry) paceLocked(peer transport.PeerID) *pace {
	p := e.paces[peer]
	if p == nil {
		if len(e.paces) >= maxTries {
			for id := range e.paces {
				if e.links[id] == nil {
					delete(e.paces, id)
					break
				}
			}
		}
		p = newPace()
		e.paces[peer] = p
	}
	return p
}

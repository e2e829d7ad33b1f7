package simulate

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/cansync/cansync/can/cantest"
)

// Fault is a kind of fault.
type Fault string

// The kinds, with what counts as an effect.
const (
	// Split: peers in different groups can't reach each other; each connection that
	// broke counts.
	Split Fault = "split"
	// OneWay: one peer can't dial another, which can still dial it; each refused
	// dial counts.
	OneWay Fault = "one-way"
	// Flap: a link fails and returns again and again; each time that it broke a
	// connection counts.
	Flap Fault = "flap"
	// Slow: a link has latency and little bandwidth; each write over it counts.
	Slow Fault = "slow"
	// Loss: a link resets streams at random; each reset counts.
	Loss Fault = "loss"
	// Reorder: what is sent over a link is delayed at random, so that streams
	// overtake one another; each time that something was overtaken counts.
	Reorder Fault = "reorder"
	// Duplicate: a link delivers what it reports as lost, so that it is sent twice;
	// each such write counts.
	Duplicate Fault = "duplicate"
	// Crash: a node loses power, with what its store had not committed.
	Crash Fault = "crash"
	// Restart: a node is closed and started again.
	Restart Fault = "restart"
	// ServiceDown: a CAN Service refuses connections; counts when its node saw it.
	ServiceDown Fault = "service-down"
	// ServiceErrors: a CAN Service fails, hangs, breaks off answers or does what it
	// was asked without saying so; each such answer counts.
	ServiceErrors Fault = "service-errors"
	// EventsLost: a CAN Service's events are lost, doubled, late, endless or of an
	// unknown type; each event counts.
	EventsLost Fault = "events-lost"
	// ClockJump: a machine's clock is set a few minutes forward or back.
	ClockJump Fault = "clock-jump"
)

// AllFaults returns every kind.
func AllFaults() []Fault {
	return []Fault{
		Split, OneWay, Flap, Slow, Loss, Reorder, Duplicate, Crash, Restart, ServiceDown, ServiceErrors, EventsLost, ClockJump,
	}
}

// serviceFaults are the ways in which a service fails. What was asked during a fault
// still ends that way after it, but within a minute or so.
func serviceFaults() []cantest.Fault {
	return []cantest.Fault{
		{Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusServiceUnavailable, RetryAfter: "2"}},
		{Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusTooManyRequests}},
		{Action: cantest.Action{Kind: cantest.ActStatus, Status: http.StatusInternalServerError}},
		{Action: cantest.Action{Kind: cantest.ActReset}},
		{Action: cantest.Action{Kind: cantest.ActHTML}},
		{Route: cantest.RouteIngest, Action: cantest.Action{Kind: cantest.ActAnswerLost}},
		{Route: cantest.RouteIngest, Action: cantest.Action{Kind: cantest.ActStatusAfter}},
		{Route: cantest.RouteIngest, Action: cantest.Action{Kind: cantest.ActHangAfter}},
		{Route: cantest.RouteUpdate, Action: cantest.Action{Kind: cantest.ActAnswerLost}},
		{Route: cantest.RouteTrash, Action: cantest.Action{Kind: cantest.ActAnswerLost}},
		{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActCut}},
		{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActHangMid}},
		{Route: cantest.RouteAsset, Action: cantest.Action{Kind: cantest.ActSlow, N: 4096, Every: time.Second}},
		{Route: cantest.RouteList, Action: cantest.Action{Kind: cantest.ActBadJSON}},
		{Route: cantest.RouteChanges, Action: cantest.Action{Kind: cantest.ActBadJSON}},
	}
}

// someServiceFault draws how a service fails. It ends by itself or when it is
// removed.
func someServiceFault(r *rand.Rand) cantest.Fault {
	all := serviceFaults()
	f := all[r.IntN(len(all))]
	f.Probability = 0.2 + 0.6*r.Float64()
	return f
}

// eventFaults draws how a service's events go wrong.
func eventFaults(r *rand.Rand) cantest.Fault {
	kinds := []cantest.ActionKind{cantest.ActEventLost, cantest.ActEventTwice, cantest.ActEventUnknown, cantest.ActEventEndless, cantest.ActEventLate}
	return cantest.Fault{
		Route: cantest.RouteEvent, Probability: 0.5 + 0.5*r.Float64(), Action: cantest.Action{Kind: kinds[r.IntN(len(kinds))]},
	}
}

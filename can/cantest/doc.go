// Package cantest holds what tests against a CAN Service need: an in-memory
// service with scripted faults and a ledger ([Service]), and a conformance suite
// for implementations of can.Client ([Run]).
//
// A Service is used in three ways: directly, since it implements can.Client and
// all optional abilities; over HTTP through [Service.Handler]; and over HTTP
// without sockets through [Service.RoundTripper], which works inside a
// testing/synctest bubble.
package cantest

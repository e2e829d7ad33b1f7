// Package capability decides who may do what in a library.
//
// Two locks stand one behind the other. Knowing a [Secret] of the library opens
// the hello ([Opener], [Responder]): both sides learn that they share it, and
// anyone else learns nothing. A [Chain] of certificates that begins at the
// library's owner key and ends at the device key under which the peer is
// connected says what that peer may do; [Bundle] carries what a stranger needs
// to verify one. Neither lock opens anything alone.
//
// A [Ticket] holds an invite certificate and its keys. Its holder shows a
// [JoinRequest] to any member with the invite right, whose [Admit] countersigns
// the new membership and seals the library's secrets to it.
//
// Everything here is pure: time and randomness are arguments, nothing is stored
// or sent, and all functions are safe for concurrent use unless said otherwise.
// The one exception is the ephemeral key of HPKE, which crypto/hpke draws from
// the operating system itself.
package capability

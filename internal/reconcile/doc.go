// Package reconcile finds what two peers' sets of 32-byte ids differ in,
// at a cost that depends on the number of differences and not on the size of
// the sets.
//
// It implements rateless invertible Bloom lookup tables (Yang, Gilad and
// Alizadeh, "Practical Rateless Set Reconciliation", SIGCOMM 2024,
// arXiv:2402.02668). A [Set] keeps the first few thousand coded symbols of a
// library's ids up to date on every insertion and removal; a [Session] is the
// two-party protocol as a pure state machine. Nothing in this package starts
// goroutines, reads clocks, or touches network or disk.
//
// # Protocol
//
//  1. The initiator sends a hello: the digest of its set, its size, and the
//     counts (not the sums) of its first 32 coded symbols, about 100 bytes.
//  2. The responder answers, by what the hello tells it:
//     the digests are equal: "equal", and both are done;
//     one side is empty or far smaller, or resumes a bulk stream: "bulk";
//     listing all ids is cheaper than coding the differences: a listing;
//     else a run of its coded symbols, as many as the differences, estimated
//     from the dispersion of the counts, are likely to take.
//  3. The initiator subtracts its own symbols and peels. If it lacks symbols it
//     asks for another run, sized by a much better estimate. When it has
//     decoded, it requests by id what it lacks; what the peer lacks it simply
//     pushes, so those ids never cross the wire. Past the cached prefix either
//     side makes its symbols in one scan.
//  4. If that exceeds its budget, both scan their sets once under a fresh key to
//     which both contributed, and repeat step 3.
//  5. If that fails too, the side with the smaller set lists its ids in order and
//     the other merges them with its own; each page is answered by a bitmap of
//     the ids wanted.
//
// # What the host must do
//
//  1. Send the messages in Step.Send in order over a reliable ordered channel,
//     and give every message that arrives to [Session.Handle].
//  2. When Step.Scan is set, read one page of ids in ascending order and give
//     it to [Session.Supply]. No lock need be held from one page to the next.
//  3. Push the records named in Step.Surplus to the peer; the peer's host does
//     the same, which brings those named in Step.Missing. Both are hints: look an
//     id up before pushing it, verify a record before believing it.
//  4. After a bulk stream, run another session: it finds what changed meanwhile.
//  5. On an error, close the channel and leave the peer alone for a while.
//
// # Change during a session
//
// A session works on the [Snapshot] it was made with. Scans may see a newer
// set: symbols made by a scan are corrected to the snapshot by decoding the
// difference between the snapshot's prefix and the scan's. Listings see the
// set as it is when they come by. Either way, what a session misses the next
// one finds.
package reconcile

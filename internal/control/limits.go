package control

// Bounds of a control set. Beyond them a node refuses what others may have, so
// they lie far above what a library of some thousand members needs.
const (
	// MaxRecords is the largest number of valid records: half of them memberships
	// and half the invites they came of, that is 16,384 members.
	MaxRecords = 32768
	// MaxShare is how many of them one member without the admin right may account
	// for, together with all whom it let in and who have not the admin right either.
	// Who makes a library of more members has to let admins do so.
	MaxShare = MaxRecords / 8
	// MaxShared is how many all such members may account for: admins are never kept
	// from speaking by others.
	MaxShared = MaxRecords / 4 * 3
	// MaxWaiting is the largest number of records kept while a certificate that
	// they rest on is missing; the one that has waited longest gives way. Peers
	// send records in an order in which nothing has to wait, and again at the next
	// reconciliation.
	MaxWaiting = 512
	// MaxOpenInvites is the largest number of invites that [State.OpenInvites] returns:
	// each costs a hello one more tag.
	MaxOpenInvites = 64
	// MaxName bounds a library's name in bytes, as in a ticket.
	MaxName = 256
)

package capability

// Bounds on what is decoded, signed and verified. They are part of the format:
// raising one makes older nodes refuse what newer ones accept.
const (
	// MaxChain is the number of certificates in a chain: the owner's first device
	// and three generations of invitation below it, one place spare. Every
	// verification costs at most two signatures per certificate.
	MaxChain = 8
	// MaxScope is the size of a certificate's scope in bytes.
	MaxScope = 1024
	// MaxBundleCerts is the number of certificates in a bundle. A chain needs at
	// most six besides the root; the rest is room for the chains of admitters.
	MaxBundleCerts = 64
	// MaxBundle is the size of an encoded bundle in bytes.
	MaxBundle = 32 << 10

	// MaxTicketText is the size of a ticket's text in bytes. It fits one message
	// of every common messenger's attachment and bounds what parsing costs.
	MaxTicketText = 64 << 10
	// MaxName is the size of a library's name in bytes of UTF-8.
	MaxName = 256
	// MaxFilter is the size of an encoded filter in bytes.
	MaxFilter = 32 << 10
	// MaxPeers is the number of peers a ticket names.
	MaxPeers = 8
	// MaxAddrs is the number of addresses a ticket gives for a peer.
	MaxAddrs = 8
	// MaxAddr is the size of an address in bytes.
	MaxAddr = 256

	// MaxTags is the number of tags in one hello message.
	MaxTags = 256
)

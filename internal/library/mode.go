package library

// Mode says what a node does in a library. Records are exchanged in every mode.
type Mode string

// The modes. The zero value is [ModeSync].
const (
	ModeSync         Mode = ""
	ModeReceiveOnly  Mode = "receive-only"
	ModeAnnounceOnly Mode = "announce-only"
	ModeRecordsOnly  Mode = "records-only"
	ModePaused       Mode = "paused"
)

// Valid reports whether m is one of the modes.
func (m Mode) Valid() bool {
	switch m {
	case ModeSync, ModeReceiveOnly, ModeAnnounceOnly, ModeRecordsOnly, ModePaused:
		return true
	}
	return false
}

// Mode returns what the node does in the library.
func (l *Library) Mode() Mode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode
}

// SetMode changes what the node does in the library.
func (l *Library) SetMode(m Mode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = m
}

// Announces reports whether local assets, edits and removals are published.
func (l *Library) Announces() bool {
	m := l.Mode()
	return m == ModeSync || m == ModeAnnounceOnly
}

// Fetches reports whether contents are fetched and records applied to the CAN
// Service.
func (l *Library) Fetches() bool {
	m := l.Mode()
	return m == ModeSync || m == ModeReceiveOnly
}

// Serves reports whether contents are served to members.
func (l *Library) Serves() bool { return l.Mode() != ModePaused }

// Paused reports whether the node does nothing but exchange records.
func (l *Library) Paused() bool { return l.Mode() == ModePaused }

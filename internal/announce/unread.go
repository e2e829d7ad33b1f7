package announce

// Scanned is closed when everything that the service held at the start has been
// read and is in the inventory. Before, nobody can tell whether it holds a content
// already.
func (a *Announcer) Scanned() <-chan struct{} { return a.health.scannedOnce }

// Unread reports whether an asset of the size is being read just now, or one whose
// size the service does not tell: it may turn out to be the content that somebody
// is about to ingest.
func (a *Announcer) Unread(size int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.busy {
		if s == size || s < 0 {
			return true
		}
	}
	return false
}

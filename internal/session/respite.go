package session

import "time"

// restMost bounds a rest, and what a peer may ask for.
const restMost = time.Hour

// respite keeps a link from telling again and again what one side can't store yet, since
// its clock is behind or that of the authors ahead: such records stay a difference of
// the two sets, and each regular round would carry all of them. After a round of the
// asset set that brought early records and nothing new, its opener leaves the asset
// set out of the next regular rounds, for two minutes at first and up to an hour;
// where the other side is who can't store, it says so. Everything that asks for a
// round beside the regular ones ends the rest, as does the end of all waiting at the
// side that could not store. Live records pass all the while.
type respite struct {
	early, news bool // in this round
	tries       int
	until       time.Time
	ours        bool // this side could not store
}

// ended is called after a round of the asset set. It returns for how long the next is
// to wait, if at all.
func (r *respite) ended() time.Duration {
	early, news := r.early, r.news
	r.early, r.news = false, false
	if !early || news {
		r.tries = 0
		return 0
	}
	r.tries++
	wait := min(time.Minute<<min(r.tries, 6), restMost)
	r.until, r.ours = time.Now().Add(wait), true
	return wait
}

// told is called when the peer asks for a rest.
func (r *respite) told(wait time.Duration) {
	r.until, r.ours = time.Now().Add(min(wait, restMost)), false
}

// holds reports whether the asset set is to be left out now.
func (r *respite) holds() bool { return time.Now().Before(r.until) }

// end ends a rest.
func (r *respite) end() { r.until = time.Time{} }

// look ends the rest when nothing waits on this side any more.
func (r *respite) look(early func() int) {
	if r.ours && r.holds() && early() == 0 {
		r.end()
	}
}

// over reports whether the rest that this side asked for has become needless, once.
func (r *respite) over(early func() int) bool {
	if !r.ours || !r.holds() || early() > 0 {
		return false
	}
	r.end()
	return true
}

// doubt spaces the reconciliations that a link asks for because of records whose author
// it does not know: the control set of the peer has such an author as a rule, unless this
// node refuses it, or the peer does not say. Beyond the first each waits twice as long as
// the one before, until the regular rounds, which begin with the control set, are as good.
type doubt struct {
	tries int
	next  time.Time
}

// ask reports whether to reconcile now.
func (d *doubt) ask() bool {
	now := time.Now()
	if now.Before(d.next) {
		return false
	}
	d.tries++
	d.next = now.Add(min(soon<<min(d.tries, 6), reconcileEvery))
	return true
}

// end is called when the control set has become another.
func (d *doubt) end() { *d = doubt{} }

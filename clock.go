package cansync

import (
	"fmt"
	"time"
)

// ClockStatus is how the node's clock is, judged by the records of its libraries.
type ClockStatus struct {
	// Behind is how far the clock is behind the newest record that the node holds,
	// where that is more than ten minutes; else it is 0. Since nothing is taken from
	// further ahead, the clock was set back: it is wrong now, or it was ahead before.
	// Until the clock has passed that record, or was set right, the node announces
	// nothing and takes nothing that is newer than its clock allows. Then it goes on
	// by itself.
	Behind time.Duration
	// Early counts records that other members offered and that are more than ten
	// minutes ahead of the clock; they are taken when it has come near. Few of them
	// mean that somebody's clock is ahead, many that this one is behind. At most
	// 10,000 are counted in each library.
	Early int
}

// clockEvery is how often the clock is looked at for [EventClock].
const clockEvery = 15 * time.Second

func (n *Node) clock() (c ClockStatus) {
	n.mu.Lock()
	libs := make([]*Library, 0, len(n.libs))
	for _, l := range n.libs {
		libs = append(libs, l)
	}
	n.mu.Unlock()
	for _, l := range libs {
		lib, done, err := l.member()
		if err != nil {
			continue
		}
		c.Behind = max(c.Behind, lib.Replica.Behind())
		c.Early += lib.Replica.Early()
		done()
	}
	return c
}

// watchClock tells when the clock goes wrong, and when it is right again.
func (n *Node) watchClock() {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for wrong := false; ; {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		behind := n.clock().Behind
		switch {
		case behind > 0 && !wrong:
			n.log.Warn("the clock of this machine is behind; nothing is announced until it is right", "behind", behind)
			n.events.emit(Event{Kind: EventClock, Err: fmt.Errorf("%s behind: %w", behind.Round(time.Second), ErrClock)})
		case behind == 0 && wrong:
			n.log.Info("the clock of this machine is right again")
			n.events.emit(Event{Kind: EventClock})
			n.announcer.Poke()
		}
		wrong = behind > 0
	}
}

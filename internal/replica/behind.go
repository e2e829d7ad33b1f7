package replica

import "sync"

// behind syncs what was stored while more is stored.
type behind struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (b *behind) start(do func() error) {
	b.wg.Go(func() {
		if err := do(); err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.err = err
		}
	})
}

func (b *behind) wait() error {
	b.wg.Wait()
	return b.err
}

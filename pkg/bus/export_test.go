package bus

// Waiting is how many calls of Ask wait.
func (b *Bus) Waiting() (n int) {
	b.waiting.mu.Lock()
	defer b.waiting.mu.Unlock()
	for _, w := range b.waiting.m {
		n += len(w)
	}
	return n
}

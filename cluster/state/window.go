package state

// window is a list that grows at one end and is dropped at the other, by number
// from any first one on, and shares structure with its forks. Only the chunk at
// its end is copied when an entry is added, so that costs the same however long
// the window is. The zero value is empty.
type window struct {
	owner *owner
	full  table[uint64, *chunk] // by number of the first entry over chunkSize
	last  *chunk                // not full; nil: nothing is in it
	first uint64                // number of the oldest entry
	count int
}

// chunkSize is how many entries are copied at most for a new one.
const chunkSize = 16

type chunk struct {
	owner   *owner
	entries [chunkSize]string
}

func (w *window) fork(o *owner) window {
	n := *w
	n.owner, n.full = o, w.full.fork(o)
	return n
}

// Len is how many entries there are.
func (w *window) Len() int { return w.count }

// Push adds the entry with a number: the one after the last, or any in an empty
// window.
func (w *window) Push(number uint64, entry string) {
	if w.count == 0 {
		w.first = number
	}
	c := w.last
	if c == nil {
		c = &chunk{owner: w.owner}
	} else if c.owner != w.owner {
		c = &chunk{w.owner, c.entries}
	}
	w.last = c
	c.entries[number%chunkSize] = entry
	w.count++
	if number%chunkSize == chunkSize-1 {
		w.full.Set(number/chunkSize, c)
		w.last = nil
	}
}

// PopMin removes the oldest entry of a window that has one. Its chunk goes with
// the last of its entries.
func (w *window) PopMin() string {
	oldest, _ := w.Get(w.first)
	if w.count--; w.count == 0 {
		w.last = nil
	}
	if w.first%chunkSize == chunkSize-1 {
		w.full.Delete(w.first / chunkSize)
	}
	w.first++
	return oldest
}

// Get finds the entry with a number.
func (w *window) Get(number uint64) (string, bool) {
	if number < w.first || number-w.first >= uint64(w.count) {
		return "", false
	}
	c, ok := w.full.Get(number / chunkSize)
	if !ok {
		c = w.last
	}
	return c.entries[number%chunkSize], true
}

// Scan walks all entries in order until yield says no.
func (w *window) Scan(yield func(uint64, string) bool) { w.Ascend(w.first, yield) }

// Ascend walks the entries from a number on, in order, until yield says no.
func (w *window) Ascend(from uint64, yield func(uint64, string) bool) {
	from = max(from, w.first)
	end := w.first + uint64(w.count)
	if from >= end {
		return
	}
	goOn := func(number uint64, c *chunk) bool {
		for at := max(from, number*chunkSize); at < min(end, (number+1)*chunkSize); at++ {
			if !yield(at, c.entries[at%chunkSize]) {
				return false
			}
		}
		return true
	}
	stopped := false
	w.full.Ascend(from/chunkSize, func(number uint64, c *chunk) bool {
		stopped = !goOn(number, c)
		return !stopped
	})
	if !stopped && w.last != nil {
		goOn((end-1)/chunkSize, w.last)
	}
}

package zone

import "unsafe"

// Answering a query takes some five steps through memory, each to where the one
// before said: slot of the tree, branch, its index, the node, its records. With
// a million domains none of them is in a cache, and a worker would spend most of
// its time waiting for them one by one. The queries of a batch have nothing to do
// with each other: Expect goes through the batch once for each step, so that the
// processor waits for all queries of a step at the same time.
//
// It is advice to the caches only. It follows the likely way alone (the longest
// anchor above the name, the node of the name itself), takes no decision, and an
// answer is the same without it: lookup looks at everything again, except that
// names are taken apart once (Expected).

const (
	// expectSize is how many queries are looked at together: each may bring two
	// dozen lines of 64 octets into the caches, and the first must not be gone
	// before the last is answered.
	expectSize = 64
	// expectLeast is the smallest batch that is worth it: fewer overlap little.
	expectLeast = 3
	// expectAnchors and expectRecords are how many octets are prefetched of a block's
	// anchors, and at most of a node: four anchors, and a DKIM record of RSA-2048.
	expectAnchors = 192
	expectRecords = 512
)

// expectation is where the query at hand was found so far.
type expectation struct {
	key    uint64 // of the anchor in the tree; 0: nothing is expected
	node   uint32 // hash of the name in the block
	shard  *shard
	branch string
}

// expecting is the memory of Expect.
type expecting struct {
	list [expectSize]expectation
	// paths are the names of the batch's questions; empty where there is none.
	paths [expectSize]path
	used  int
}

// Expected says that the message to be replied to next is the one at an index of
// the batch that Expect was given last, so that its name is not taken apart again.
func (r *Responder) Expected(index int) {
	r.query.ahead = nil
	if index < r.expecting.used && r.expecting.paths[index].length > 0 {
		r.query.ahead = &r.expecting.paths[index]
	}
}

// spend drops the path that Expected gave: it is of one message, and the look-up may
// have overwritten it with other names of a chain.
func (q *query) spend() {
	if q.ahead != nil {
		q.ahead.length, q.ahead = 0, nil
	}
}

// Expect prefetches the memory that answering a batch of messages will read. Messages
// may be any octets; those past expectSize are left out. They must not change until
// they are replied to.
func (r *Responder) Expect(batch [][]byte) {
	x := &r.expecting
	x.used = 0
	n := min(len(batch), expectSize)
	if n < expectLeast {
		return
	}
	x.used = n
	list := x.list[:n]
	c := r.tree.common.Load()
	for i := range list {
		list[i] = expectation{}
		list[i].read(&x.paths[i], batch[i], c)
	}
	for i := range list {
		list[i].shard = r.tree.shards[shardOf(list[i].key)].Load()
		ahead(list[i].shard)
	}
	for i := range list {
		list[i].slot()
	}
	for i := range list {
		list[i].find()
	}
	for i := range list {
		list[i].index()
	}
	for i := range list {
		list[i].records()
	}
}

// ahead prefetches the cache line at which something begins.
func ahead[T any](what *T) { prefetch((*byte)(unsafe.Pointer(what)), 1) }

// read takes the question's name apart as far as the first anchor it may have.
func (e *expectation) read(p *path, message []byte, c *common) {
	p.length = 0
	if len(message) <= headerSize {
		return
	}
	length := nameLength(message[headerSize:])
	if length == 0 {
		return
	}
	p.setAsked(message[headerSize : headerSize+length])
	e.node = nodeHash(p.hash[p.count])
	for d := c.anchors.atMost(p.count); d > 0; d = c.anchors.atMost(d - 1) {
		if key, ok := p.tokenKey(d); ok {
			e.key = key
			return
		}
		if c.depths.has(d) {
			e.key = p.hash[d]
			return
		}
	}
}

// slot prefetches the slot that the search for the key begins at.
func (e *expectation) slot() {
	if e.shard != nil {
		ahead(&e.shard.slots[e.shard.home(e.key)])
	}
}

// find finds the branch, and prefetches its header.
func (e *expectation) find() {
	s := e.shard
	if s == nil {
		return
	}
	for at := s.home(e.key); s.slots[at].branch != ""; at = s.next(at) {
		if s.slots[at].hash == e.key {
			e.branch = string(s.slots[at].branch)
			e.ask(0, blockHeader)
			return
		}
	}
}

// index prefetches the index and anchors of the branch.
func (e *expectation) index() {
	if len(e.branch) < blockHeader || e.branch[atForm] == entMark {
		e.branch = ""
		return
	}
	e.ask(blockHeader, firstAnchor(e.branch)+expectAnchors)
}

// records prefetches the node with the hash of the name, and its records.
func (e *expectation) records() {
	b := e.branch
	if b == "" {
		return
	}
	at := firstNode(b, e.node)
	if n, ok := nodeAt(b, at, e.node); ok {
		e.ask(n.at, min(n.at+expectRecords, nodeEnd(b, at)))
	}
}

// ask prefetches a part of the branch.
func (e *expectation) ask(from, to int) {
	if to = min(to, len(e.branch)); from < to {
		prefetch(unsafe.StringData(e.branch[from:]), to-from)
	}
}

package zone

// Answering a query takes some five steps through memory, each to where the one
// before said: slot of the tree, branch, its index, the node, its records. With
// a million domains none of them is in a cache, and a worker would spend most of
// its time waiting for them one by one. The queries of a batch have nothing to do
// with each other: Expect goes through the batch once for each step, so that the
// processor waits for all queries of a step at the same time.
//
// It is advice to the caches only. It follows the likely way alone (the longest
// anchor above the name, the node of the name itself), takes no decision, and an
// answer is the same without it: lookup looks at everything again, but for the
// names, which are taken apart once (Expected).

const (
	// expectSize is how many queries are looked at together: each may bring two
	// dozen lines of 64 octets into the caches, and the first must not be gone
	// before the last is answered.
	expectSize = 64
	// expectLeast is how few are not worth it: there is little to overlap.
	expectLeast = 3
	// cacheLine is the usual size; with another one some loads are in vain.
	cacheLine = 64
	// expectAnchors and expectRecords are how many octets are read ahead of a
	// block's anchors and of a node: four anchors, and a DKIM record of RSA-2048.
	expectAnchors = 192
	expectRecords = 448
)

// expectation is where the query at hand was found so far.
type expectation struct {
	key    uint64 // of the anchor in the tree; 0: nothing is expected
	node   uint32 // hash of the name in the block
	branch string
}

// expecting is the memory of Expect.
type expecting struct {
	list [expectSize]expectation
	// paths are the names of the batch's questions; empty where there is none.
	paths [expectSize]path
	used  int
	// seen takes part of all that was read, so that the compiler leaves it in.
	seen uint64
}

// Expected says that the message to be replied to next is the one at an index of
// the batch that Expect was given last, so that its name is not taken apart again.
func (r *Responder) Expected(index int) {
	r.query.ahead = nil
	if index < r.expecting.used && r.expecting.paths[index].length > 0 {
		r.query.ahead = &r.expecting.paths[index]
	}
}

// spend ends what Expected said: it is of one message, and its look-up may have
// gone on to other names in the same place.
func (q *query) spend() {
	if q.ahead != nil {
		q.ahead.length, q.ahead = 0, nil
	}
}

// Expect reads ahead what answering the messages of a batch will take. Messages
// may be anything; those past expectSize are left out. They must stay as they are
// until they are replied to.
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
		x.read(&list[i], &x.paths[i], batch[i], c)
	}
	x.slots(r.tree, list)
	x.branches(r.tree, list)
	x.indexes(list)
	x.nodes(list)
}

// read takes the question's name apart as far as the first anchor it may have.
func (x *expecting) read(e *expectation, p *path, message []byte, c *common) {
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
	for d := p.count; d > 0; d-- {
		if key, ok := p.tokenKey(d); ok {
			e.key = key
			return
		}
		if c.deep(d) {
			e.key = p.hash[d]
			return
		}
	}
}

// slots reads the slots that the search for the keys begins at.
func (x *expecting) slots(t *Tree, list []expectation) {
	for i := range list {
		if s := t.shards[shardOf(list[i].key)].Load(); s != nil {
			x.seen += s.slots[s.home(list[i].key)].hash
		}
	}
}

// branches finds the branches, and reads their first octets.
func (x *expecting) branches(t *Tree, list []expectation) {
	for i := range list {
		e := &list[i]
		s := t.shards[shardOf(e.key)].Load()
		if s == nil {
			continue
		}
		for at := s.home(e.key); s.slots[at].branch != ""; at = s.next(at) {
			if s.slots[at].hash == e.key {
				e.branch = string(s.slots[at].branch)
				x.seen += uint64(e.branch[0])
				break
			}
		}
	}
}

// indexes reads the indexes and anchors of the branches.
func (x *expecting) indexes(list []expectation) {
	for i := range list {
		b := list[i].branch
		if len(b) < blockHeader || b[atForm] == entMark {
			list[i].branch = ""
			continue
		}
		x.touch(b, cacheLine, firstAnchor(b)+expectAnchors)
	}
}

// nodes reads the nodes with the hashes of the names, and what follows them.
func (x *expecting) nodes(list []expectation) {
	for i := range list {
		b := list[i].branch
		if b == "" {
			continue
		}
		if n, ok := nodeAt(b, firstNode(b, list[i].node), list[i].node); ok {
			x.touch(b, n.at, n.at+expectRecords)
		}
	}
}

// touch reads every line of a part of a block.
func (x *expecting) touch(b string, from, to int) {
	for at := from; at < min(to, len(b)); at += cacheLine {
		x.seen += uint64(b[at])
	}
}

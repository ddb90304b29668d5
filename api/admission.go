package api

import "sync"

// Bounds of what the requests of all clients may hold at once. Each write waits in
// the leader's queue once, so that queue is never longer than maxRequests.
const (
	maxRequests = 4096
	maxBodies   = 512 << 20 // octets that bodies may have in memory
)

// Reasons for which requests and connections are turned away, as the metric has them.
const (
	refusedConnections = "connections" // too many are open
	refusedAddress     = "address"     // too many are open from one address
	refusedWaiting     = "waiting"     // it was open without a request of a token, and another came
	refusedRequests    = "requests"    // too many are under way
	refusedBodies      = "bodies"      // too many octets are being read
	refusedStreams     = "streams"     // too many change streams
	refusedQueue       = "queue"       // the leader's queue of writes is full
)

// admission lets requests in while there is room for others behind them.
type admission struct {
	mu       sync.Mutex // guards what follows
	requests room
	bodies   room
}

func newAdmission() *admission {
	return &admission{
		requests: room{limit: maxRequests, by: map[string]int64{}},
		bodies:   room{limit: maxBodies, by: map[string]int64{}},
	}
}

// enter lets a request in, or says which room is full.
func (a *admission) enter(payer string, octets int64) (leave func(), full string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.requests.take(payer, 1) {
		return nil, refusedRequests
	}
	if !a.bodies.take(payer, octets) {
		a.requests.give(payer, 1)
		return nil, refusedBodies
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.requests.give(payer, 1)
		a.bodies.give(payer, octets)
	}, ""
}

// room is a bounded amount of something. Nobody gets more of it than is left for others
// at that moment: one payer alone half, two a third each, so that behind any flood there
// is room for the next to come.
type room struct {
	limit, used int64
	by          map[string]int64
}

func (r *room) take(payer string, n int64) bool {
	if n == 0 {
		return true
	}
	if free := r.limit - r.used; n > free || r.by[payer] >= free {
		return false
	}
	r.used += n
	r.by[payer] += n
	return true
}

func (r *room) give(payer string, n int64) {
	if n == 0 {
		return
	}
	r.used -= n
	if r.by[payer] -= n; r.by[payer] == 0 {
		delete(r.by, payer)
	}
}

// payer says whose share a request uses: all tokens of a tenant have one share.
func (i identity) payer() string {
	if i.tenant != "" {
		return tenantScope + i.tenant
	}
	return i.id
}

package main

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// queue is the visits to come.
type queue struct {
	mu    sync.Mutex // guards list and rests
	list  visits
	wake  chan struct{}
	rests map[*subject]time.Time // the next visit at rest
}

type visit struct {
	at      time.Time
	subject *subject
	kind    string
	before  bool
}

type visits []visit

func (v visits) Len() int           { return len(v) }
func (v visits) Less(i, j int) bool { return v[i].at.Before(v[j].at) }
func (v visits) Swap(i, j int)      { v[i], v[j] = v[j], v[i] }
func (v *visits) Push(x any)        { *v = append(*v, x.(visit)) }
func (v *visits) Pop() any {
	old := *v
	x := old[len(old)-1]
	*v = old[:len(old)-1]
	return x
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), rests: map[*subject]time.Time{}}
}

// add plans a visit. One at rest is planned once, until it was made.
func (q *queue) add(at time.Time, s *subject, kind string, before bool) {
	q.mu.Lock()
	if kind == atRest {
		if planned, ok := q.rests[s]; ok && planned.After(time.Now()) {
			q.mu.Unlock()
			return
		}
		q.rests[s] = at
	}
	heap.Push(&q.list, visit{at, s, kind, before})
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next waits for the next visit that is due.
func (q *queue) next(ctx context.Context) (v visit, ok bool) {
	for ctx.Err() == nil {
		q.mu.Lock()
		wait := time.Second
		if len(q.list) > 0 {
			if wait = time.Until(q.list[0].at); wait <= 0 {
				v = heap.Pop(&q.list).(visit)
				q.mu.Unlock()
				return v, true
			}
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-time.After(min(wait, time.Second)):
		case <-ctx.Done():
		}
	}
	return v, false
}

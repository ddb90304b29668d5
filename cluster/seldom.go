package cluster

import (
	"sync"
	"time"
)

const (
	// seldomPause is between two lines of the log about one subject.
	seldomPause = time.Minute
	// maxSeldom bounds the subjects that are told apart; the rest count as one.
	maxSeldom = 256
)

// seldom keeps the log from filling with one thing: a peer that is turned away comes
// again every second, for as long as nobody looks.
type seldom struct {
	mu    sync.Mutex // guards about
	about map[string]*told
}

// told is when something was last said of a subject, and what was left out since.
type told struct {
	at   time.Time
	left int
}

// says is whether to say something of a subject now, and how often it was left out.
func (s *seldom) says(subject string) (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	t := s.about[subject]
	if t == nil {
		t = s.admit(subject, now)
	}
	if !t.at.IsZero() && now.Sub(t.at) < seldomPause {
		t.left++
		return 0, false
	}
	left = t.left
	t.at, t.left = now, 0
	return left, true
}

// admit makes room for a subject. mu is held.
func (s *seldom) admit(subject string, now time.Time) *told {
	if s.about == nil {
		s.about = make(map[string]*told)
	}
	if len(s.about) >= maxSeldom {
		for other, t := range s.about {
			if now.Sub(t.at) >= seldomPause {
				delete(s.about, other)
			}
		}
	}
	if len(s.about) >= maxSeldom {
		subject = "" // one of many
	}
	if s.about[subject] == nil {
		s.about[subject] = new(told)
	}
	return s.about[subject]
}

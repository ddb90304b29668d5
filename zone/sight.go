package zone

import (
	"context"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// Sight watches until a server answers questions as a tree does. Either may be ahead
// of the other, and names may change meanwhile: a question counts as seen once the
// server gave an answer that the tree gave too since the first look. So a server that
// stands still at an older state is never seen, and one that keeps changing is.
// Serials of SOA records do not count: unrelated changes raise them.
type Sight struct {
	asker  *Asker
	server string
	open   []sighted // not seen yet
}

// mirror answers as a server of the tree would.
type mirror struct {
	responder *Responder
	buffer    []byte
}

type sighted struct {
	question     Question
	ours, theirs []string // answers, in a form that can be compared
}

// Sight begins to watch a server.
func (a *Asker) Sight(server string, questions []Question) *Sight {
	s := &Sight{asker: a, server: server}
	for _, q := range questions {
		s.open = append(s.open, sighted{question: q})
	}
	return s
}

// Look asks what was not seen yet, and says why it is not; empty: all was seen. The
// error is of the connection: then nothing was learnt.
func (s *Sight) Look(ctx context.Context) (why string, err error) {
	if len(s.open) == 0 {
		return "", nil
	}
	questions := make([]Question, len(s.open))
	for i, o := range s.open {
		questions[i] = o.question
	}
	replies, err := s.asker.Ask(ctx, s.server, questions)
	if err != nil {
		return "", err
	}
	m := s.asker.mirrors.Get().(*mirror)
	defer s.asker.mirrors.Put(m)
	var still []sighted
	for i, o := range s.open {
		own, err := m.answer(o.question)
		if err != nil {
			return "", err
		}
		if string(own) == string(replies[i]) {
			continue
		}
		theirs, said, err := plainly(replies[i])
		if err != nil {
			return "", fmt.Errorf("reading what %s answers: %w", s.server, err)
		}
		ours, _, err := plainly(own)
		if err != nil {
			return "", err
		}
		o.ours, o.theirs = keepOnce(o.ours, ours), keepOnce(o.theirs, theirs)
		if slices.Contains(o.theirs, ours) || slices.Contains(o.ours, theirs) {
			continue
		}
		if why == "" {
			why = fmt.Sprintf("%s answers otherwise to %s: %s", s.server, o.question, said)
		}
		still = append(still, o)
	}
	s.open = still
	return why, nil
}

// maxSeen bounds the answers to one question that are kept; the oldest goes.
const maxSeen = 16

func keepOnce(list []string, answer string) []string {
	if slices.Contains(list, answer) {
		return list
	}
	if len(list) == maxSeen {
		list = list[1:]
	}
	return append(list, answer)
}

// answer is what a server of the tree answers over TCP, with ID 0; good until the next.
func (m *mirror) answer(q Question) ([]byte, error) {
	wire, err := q.message(0)
	if err != nil {
		return nil, err
	}
	return m.responder.Reply(m.buffer[:0], wire, true), nil
}

// plainly gives a reply without the serials of SOA records, and a summary of it.
func plainly(reply []byte) (text, said string, err error) {
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		return "", "", err
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if soa, ok := rr.(*dns.SOA); ok {
				soa.Serial = 0
			}
		}
	}
	said = dns.RcodeToString[m.Rcode]
	if m.Rcode == dns.RcodeSuccess {
		said = fmt.Sprintf("%d records", len(m.Answer))
	}
	return m.String(), said, nil
}

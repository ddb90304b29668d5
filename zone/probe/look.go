package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"authd/zone"
)

// Question is a name and a type, such as CNAME.
type Question struct {
	Name zone.Name
	Type string
}

// Record is a type with its value, as a zone file has it, names in lower case.
type Record struct{ Type, Value string }

// Answer is what a zone's own servers say to a question: the records at that very
// name, whatever their type, so that an alias shows where an address was asked for.
type Answer struct {
	Records []Record
	// Differ: not all servers say the same, as while a change is on its way.
	Differ bool
	// Asked: at least one server gave an answer that counts.
	Asked bool
}

// Sight is what Look saw.
type Sight struct {
	Zone    zone.Name // whose servers were asked
	Servers []string  // those that answered, "name/address"
	Answers []Answer  // one for each question
}

// Bounds of one Look: the check is of a customer's few names.
const (
	maxQuestions   = 32
	lookServers    = 4 // addresses asked
	maxSightings   = 16
	maxSightOctets = 300 // of one value
)

// Look asks the servers of the zone that the name above within lies in, without
// recursion, so that no cache speaks. It fails only where nobody could be asked.
func (p *Prober) Look(ctx context.Context, within zone.Name, questions []Question) (Sight, error) {
	if within == "" || within == zone.Root {
		return Sight{}, errors.New("looking at records: the root has no zone above")
	}
	if len(questions) > maxQuestions {
		return Sight{}, fmt.Errorf("looking at records: %d questions, at most %d", len(questions), maxQuestions)
	}
	ctx, cancel := context.WithTimeout(ctx, totalTimeouts*p.config.Timeout)
	defer cancel()
	apex, err := p.parent(ctx, within)
	if err != nil {
		return Sight{}, fmt.Errorf("finding the zone of %s: %w", within, err)
	}
	servers, err := p.servers(ctx, apex)
	if err != nil {
		return Sight{}, fmt.Errorf("finding the servers of %s: %w", apex, err)
	}
	servers = servers[:min(len(servers), lookServers)]
	replies := make([][]lookReply, len(servers))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, s := range servers {
		group.Go(func() error {
			replies[i] = p.lookAt(ctx, s, apex, questions)
			return nil
		})
	}
	group.Wait()
	return sum(apex, servers, questions, replies)
}

// lookReply is one server's answer to one question; err: none that counts.
type lookReply struct {
	records []Record
	err     error
}

// lookAt asks one server all questions, until it gives no answer at all.
func (p *Prober) lookAt(ctx context.Context, s server, apex zone.Name, questions []Question) []lookReply {
	replies := make([]lookReply, len(questions))
	var gone error
	for i, q := range questions {
		if gone != nil {
			replies[i].err = gone
			continue
		}
		m, err := p.exchange(ctx, addrPort(s, p.config.ServerPort), q.Name, dns.StringToType[q.Type], false)
		switch {
		case err != nil:
			replies[i].err, gone = err, err
		case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
			replies[i].err = fmt.Errorf("answers %s", rcodeText(m.Rcode))
		default:
			replies[i].records = at(slices.Concat(m.Answer, m.Ns), q.Name, apex)
			if !m.Authoritative && len(replies[i].records) == 0 {
				// Such as a referral to a zone below: that nothing is there it does not say.
				replies[i].err = fmt.Errorf("is no authority for %s", q.Name)
			}
		}
	}
	return replies
}

// at are the records of one owner, sorted. The apex's own NS and SOA, which servers
// add to any answer, are no answer.
func at(records []dns.RR, owner, apex zone.Name) []Record {
	var found []Record
	for _, rr := range records {
		name, err := zone.ParseName(rr.Header().Name)
		t := rr.Header().Rrtype
		if err != nil || name != owner || t == dns.TypeSOA || t == dns.TypeRRSIG || t == dns.TypeNSEC || len(found) == maxSightings {
			continue
		}
		if owner == apex && t == dns.TypeNS {
			continue
		}
		value := strings.TrimPrefix(rr.String(), rr.Header().String())
		if t == dns.TypeCNAME || t == dns.TypeNS {
			value = strings.ToLower(value)
		}
		r := Record{dns.TypeToString[t], value[:min(len(value), maxSightOctets)]}
		if !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b Record) int { return strings.Compare(a.Type+" "+a.Value, b.Type+" "+b.Value) })
	return found
}

// sum makes one answer a question of what the servers said.
func sum(apex zone.Name, servers []server, questions []Question, replies [][]lookReply) (Sight, error) {
	sight := Sight{Zone: apex, Answers: make([]Answer, len(questions))}
	var causes []error
	for i, of := range replies {
		answered := false
		for q, r := range of {
			if r.err != nil {
				causes = append(causes, fmt.Errorf("%s: %w", servers[i], r.err))
				continue
			}
			a := &sight.Answers[q]
			a.Differ = a.Differ || a.Asked && !slices.Equal(a.Records, r.records)
			for _, record := range r.records {
				if !slices.Contains(a.Records, record) {
					a.Records = append(a.Records, record)
				}
			}
			a.Asked, answered = true, true
		}
		if answered {
			sight.Servers = append(sight.Servers, servers[i].String())
		}
	}
	if len(sight.Servers) == 0 && len(questions) > 0 {
		return Sight{}, fmt.Errorf("asking the servers of %s: %w", apex, join(causes))
	}
	return sight, nil
}

// CNAMEs asks the servers of the zone that the first of the names lies in where the
// CNAMEs at them lead: nil where no server gave an answer that counts, empty where there
// is none. It fails only where nobody could be asked.
func (p *Prober) CNAMEs(ctx context.Context, names []zone.Name) (leads [][]zone.Name, servers []string, err error) {
	if len(names) == 0 {
		return nil, nil, errors.New("looking at CNAMEs: no names")
	}
	questions := make([]Question, len(names))
	for i, n := range names {
		questions[i] = Question{Name: n, Type: "CNAME"}
	}
	sight, err := p.Look(ctx, names[0], questions)
	if err != nil {
		return nil, nil, err
	}
	leads = make([][]zone.Name, len(names))
	for i, a := range sight.Answers {
		if !a.Asked {
			continue
		}
		leads[i] = []zone.Name{}
		for _, r := range a.Records {
			if target, err := zone.ParseName(r.Value); err == nil && r.Type == "CNAME" {
				leads[i] = append(leads[i], target)
			}
		}
	}
	return leads, sight.Servers, nil
}

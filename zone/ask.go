package zone

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// Told is what a server answered for a name's TXT.
type Told struct {
	Text string // of the one record, its strings joined
	// Problem is why there is no Text: "NXDOMAIN", "no TXT record"; empty otherwise.
	Problem string
}

// AskTexts asks an authoritative server for the TXT of names, all at once over
// one TCP connection (RFC 7766 section 6.2.1.1), in the order of the names. The
// error is of the connection: nothing is known then.
func AskTexts(ctx context.Context, server string, names []Name) ([]Told, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("asking a node's DNS listener: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	sent := make(chan error, 1)
	conn := &dns.Conn{Conn: c}
	go func() {
		for i, n := range names {
			q := new(dns.Msg)
			q.SetQuestion(n.String(), dns.TypeTXT)
			q.Id, q.RecursionDesired = uint16(i), false
			if err := conn.WriteMsg(q); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	told, heard := make([]Told, len(names)), make([]bool, len(names))
	for range names {
		reply, err := conn.ReadMsg()
		if err != nil {
			c.Close()
			<-sent
			return nil, fmt.Errorf("reading from %s: %w", server, err)
		}
		i := int(reply.Id)
		if i >= len(names) || heard[i] || len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, names[i].String()) {
			c.Close()
			<-sent
			return nil, fmt.Errorf("reading from %s: a reply to no question of ours", server)
		}
		heard[i], told[i] = true, toldBy(reply)
	}
	return told, <-sent
}

func toldBy(m *dns.Msg) Told {
	switch {
	case m.Rcode != dns.RcodeSuccess:
		return Told{Problem: dns.RcodeToString[m.Rcode]}
	case !m.Authoritative:
		return Told{Problem: "an answer without authority"}
	case len(m.Answer) != 1:
		return Told{Problem: fmt.Sprintf("%d records", len(m.Answer))}
	}
	txt, ok := m.Answer[0].(*dns.TXT)
	if !ok {
		return Told{Problem: "no TXT record"}
	}
	return Told{Text: strings.Join(txt.Txt, "")}
}

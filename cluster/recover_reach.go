package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"authd/cluster/state"
	"authd/zone"
)

// Where most of the old members live they are a cluster, and go on as one: nothing in a
// log can tell them that they were given up. So before a recovery everything that can
// be asked is asked, and the rest an operator has to answer for.

// reachTime is how long something that lives may take to show it.
const reachTime = 5 * time.Second

// Living lists what lives of the cluster that is to be given up, as far as it can be
// reached from here: processes at the node links of the others that show certificates
// of one of roots. Empty: nothing.
func (r *Recovery) Living(ctx context.Context, roots *x509.CertPool) []string {
	return r.living(ctx, tcp{}, roots)
}

func (r *Recovery) living(ctx context.Context, over network, roots *x509.CertPool) []string {
	return askEach(ctx, r.Lost, func(ctx context.Context, m Member) string {
		c, err := over.Dial(ctx, m.Address)
		if err != nil {
			return "" // nobody, as far as can be told from here
		}
		defer c.Close()
		until, _ := ctx.Deadline()
		c.SetDeadline(until)
		return whoIs(ctx, c, m, roots)
	})
}

// whoIs says who has accepted a connection at a member's address; empty: no node. A node
// shows its certificate before it asks for one. Something that accepts and says
// nothing may be a process that was stopped, or one that has too much to do.
func whoIs(ctx context.Context, c net.Conn, m Member, roots *x509.CertPool) string {
	var shown *x509.Certificate
	client := tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocolCall},
		InsecureSkipVerify: true, // a node with an expired certificate lives as well
		VerifyConnection: func(s tls.ConnectionState) error {
			shown = s.PeerCertificates[0]
			return nil
		},
	})
	err := client.HandshakeContext(ctx)
	if shown != nil {
		if !trusted(shown, roots) {
			return ""
		}
		return fmt.Sprintf("node %s lives at %s", nodeName(shown), m.Address)
	}
	var n net.Error
	if errors.As(err, &n) && n.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Sprintf("something at %s, the address of node %s, takes connections and does not say what it is", m.Address, m.ID)
	}
	return ""
}

// Answering lists the addresses of name servers that answer for a platform zone although
// this node does not run: there the old cluster answers, or whatever took its place. Old
// nodes may be reached there when their node links are not.
func (r *Recovery) Answering(ctx context.Context) []string {
	asker := zone.NewAsker(zone.NewTree())
	defer asker.Close()
	return r.answering(ctx, asker.Ask)
}

func (r *Recovery) answering(ctx context.Context, ask func(ctx context.Context, server string, q []zone.Question) ([][]byte, error)) []string {
	var apex zone.Name
	for p := range r.machine.Platforms() {
		apex = p.Apex
		break
	}
	var servers []string
	for s := range r.machine.NameServers() {
		for _, a := range s.Addresses {
			servers = append(servers, net.JoinHostPort(a.String(), "53"))
		}
	}
	if apex.String() == "" {
		return nil
	}
	return askEach(ctx, servers, func(ctx context.Context, server string) string {
		replies, err := ask(ctx, server, []zone.Question{{Name: apex, Type: zone.TypeSOA}})
		if err != nil || len(replies[0]) < 4 {
			return ""
		}
		const authoritative, rcode = 4, 15 // RFC 1035 section 4.1.1
		if replies[0][2]&authoritative == 0 || replies[0][3]&rcode != 0 {
			return ""
		}
		return fmt.Sprintf("%s answers DNS for %s", server, apex)
	})
}

// askEach asks all at once, and gives what was found in order.
func askEach[T any](ctx context.Context, whom []T, ask func(ctx context.Context, one T) string) []string {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	found := make([]string, len(whom))
	var wg sync.WaitGroup
	for i, one := range whom {
		wg.Go(func() { found[i] = ask(ctx, one) })
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(s string) bool { return s == "" })
}

// recovered is the machine as it begins its next epoch: the audit has the operator's
// statement, and nothing waits for the nodes that were given up.
func (r *Recovery) recovered(statement string) state.Machine {
	who := func(c state.Command) state.Entry {
		return state.Entry{Actor: "operator recover", Reason: statement, Command: c}
	}
	lost := "nobody"
	for i, m := range r.Lost {
		if lost += ", " + m.ID; i == 0 {
			lost = m.ID
		}
	}
	entries := []state.Entry{who(state.Note{Kind: "cluster", Subject: r.Member.ID, Text: "recovered from this node alone; given up: " + lost})}
	for _, m := range r.Lost {
		entries = append(entries,
			who(state.SettleNode{ID: m.ID}),
			who(state.SetServing{Node: m.ID, Serving: true}))
	}
	// Entries of Raft's own move no machine's index; the snapshot stands for them too.
	m, _, _ := r.machine.Apply(r.Last, entries)
	return m.NextEpoch()
}

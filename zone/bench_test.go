package zone

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// BenchmarkParse is what reading a usual query costs.
func BenchmarkParse(b *testing.B) {
	message := ask(b, "k1.aaaaaaaaaaaaaaaaaaaaaaaaaa.dkim.p-dns.test.", dns.TypeTXT, edns(1232))
	var q query
	b.ReportAllocs()
	for b.Loop() {
		q.parse(message)
	}
}

// BenchmarkReply is a query from octets to octets, without sockets.
func BenchmarkReply(b *testing.B) {
	tree := packetTree(b)
	for _, c := range []struct{ name, qname string }{
		{"answer", "key.p-dns.test."}, {"no name", "none.p-dns.test."}, {"refused", "elsewhere.test."},
	} {
		b.Run(c.name, func(b *testing.B) {
			message := ask(b, c.qname, dns.TypeTXT, edns(1232))
			responder := NewResponder(tree, "")
			buffer := make([]byte, 0, MaxUDP)
			b.ReportAllocs()
			for b.Loop() {
				responder.Reply(buffer, message, false)
			}
		})
	}
}

// BenchmarkServerUDP asks over loopback sockets and counts answers: client and
// server share the machine, so that it compares changes, not servers. For
// those, load the server from another core (bench).
func BenchmarkServerUDP(b *testing.B) {
	const clients, window = 4, 64 // queries outstanding a client
	s := serve(b, defaultLimits(), "127.0.0.1")
	message := ask(b, "key.p-dns.test.", dns.TypeTXT, edns(1232))
	each := max(1, b.N/clients)
	done := make(chan error, clients)
	b.ResetTimer()
	for range clients {
		conn := dial(b, "udp", s.Addresses()[0])
		go func() { done <- askMany(conn, message, each, window) }()
	}
	for range clients {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(clients*each)/b.Elapsed().Seconds(), "answers/s")
}

func askMany(conn net.Conn, message []byte, n, window int) error {
	conn.SetDeadline(time.Now().Add(time.Minute))
	buffer := make([]byte, MaxUDP)
	for sent, got := 0, 0; got < n; got++ {
		for ; sent < n && sent-got < window; sent++ {
			if _, err := conn.Write(message); err != nil {
				return err
			}
		}
		if _, err := conn.Read(buffer); err != nil {
			return err
		}
	}
	return nil
}

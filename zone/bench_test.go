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

// BenchmarkGuarded is what cookies and limits add to BenchmarkReply's answer: a
// quiet prefix, one that asks for many names, as a benchmark's only client does,
// a flood for one name, and the three kinds of cookies.
func BenchmarkGuarded(b *testing.B) {
	plain := ask(b, "key.p-dns.test.", dns.TypeTXT, edns(1232))
	with := func(cookie string) []byte {
		return ask(b, "key.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(cookie)))
	}
	r := guarded(b, RateLimit{Total: maxRate})
	buffer := make([]byte, 0, MaxUDP)
	good := cookieOf(unpack(b, r.reply(nil, with(clientCookie), udpFrom("192.0.2.1"))))
	for _, c := range []struct {
		name    string
		message []byte
		step    time.Duration // between messages
	}{
		{"quiet", plain, time.Second}, {"flood", plain, time.Microsecond},
		{"client cookie", with(clientCookie), time.Second}, {"good cookie", with(good), 0}, {"bad cookie", with(good[:46] + "00"), time.Second},
	} {
		b.Run(c.name, func(b *testing.B) {
			from := udpFrom("192.0.2.1")
			b.ReportAllocs()
			for b.Loop() {
				r.now += int64(c.step)
				r.reply(buffer, c.message, from)
			}
		})
	}
	b.Run("limiter alone, distinct names of a busy prefix", func(b *testing.B) {
		l, from, i := r.guard.limiter, udpFrom("198.51.100.1"), 0
		for b.Loop() {
			i++
			l.take(from, int64(i)*2000, classAnswer, distinct(i))
		}
	})
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

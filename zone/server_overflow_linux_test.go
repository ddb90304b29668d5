//go:build !portable

package zone

import (
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// What a socket has no room for the kernel drops and counts; what it took is answered,
// and so is what comes after.
func TestFullSocketIsCountedAndAnswersTheRest(t *testing.T) {
	w := idleWorker(t, "127.0.0.1")
	if err := control(w.raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10) }); err != nil {
		t.Fatal(err)
	}
	w.server.workers = []*udpWorker{w}
	address := w.socket.address
	question := ask(t, "key.p-dns.test.", dns.TypeTXT)
	const floods = 2_000
	flood := dial(t, "udp", address)
	for range floods {
		if _, err := flood.Write(question); err != nil {
			t.Fatal(err)
		}
	}
	dropped := w.server.Stats().Overflowed
	w.rounds()
	answered := w.server.Stats().Responses["udp/NOERROR"]
	if dropped == 0 || answered == 0 || dropped+answered+w.server.Stats().Dropped != floods {
		t.Errorf("%d dropped and %d answered of %d", dropped, answered, floods)
	}
	later := dial(t, "udp", address)
	if _, err := later.Write(question); err != nil {
		t.Fatal(err)
	}
	w.rounds()
	if _, err := later.Read(make([]byte, 1500)); err != nil {
		t.Error(err)
	}
	if now := w.server.Stats().Overflowed; now != dropped {
		t.Errorf("%d dropped, %d before", now, dropped)
	}
	w.close()
	if n := w.server.Stats().Overflowed; n != 0 {
		t.Errorf("%d of a closed socket", n)
	}
}

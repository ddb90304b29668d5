package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An old disk asks every second for as long as nobody looks.
func TestRefusedPeersAreToldOnceAMinuteEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l, err := newLink(&tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{{}}}, slog.New(slog.NewTextHandler(&log, nil)))
		must(t, err)
		const minutes = 10
		for i := range minutes * 60 {
			for _, peer := range []string{"192.0.2.7", "192.0.2.8"} {
				l.refuse("node connection refused", peer, "error", fmt.Sprintf("attempt %d", i))
			}
			time.Sleep(time.Second)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2*minutes {
			t.Fatalf("%d lines in %d minutes of two peers", len(lines), minutes)
		}
		if strings.Contains(lines[0], "unsaid") || !strings.Contains(lines[2], "unsaid=59") || !strings.Contains(lines[2], "attempt 60") {
			t.Errorf("told as\n%s\n%s", lines[0], lines[2])
		}
		if n := l.refused.Load(); n != 2*minutes*60 {
			t.Errorf("%d counted", n)
		}
	})
}

func TestSubjectsOfTheLogAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seldom
		said := 0
		for i := range 10 * maxSeldom {
			if _, ok := s.says(fmt.Sprintf("192.0.2.%d", i)); ok {
				said++
			}
		}
		if said != maxSeldom+1 || len(s.about) != maxSeldom+1 {
			t.Errorf("%d said, %d remembered", said, len(s.about))
		}
		time.Sleep(seldomPause)
		if left, ok := s.says("198.51.100.1"); !ok || left != 0 || len(s.about) != 1 {
			t.Errorf("a minute later: %t, %d left out, %d remembered", ok, left, len(s.about))
		}
	})
}

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// testLink is one end of a node link.
func testLink(t *testing.T, c *tls.Config, id string, members ...string) *link {
	t.Helper()
	return patientLink(t, handshakeTime, c, id, members...)
}

func patientLink(t *testing.T, patience time.Duration, c *tls.Config, id string, members ...string) *link {
	t.Helper()
	return linkWith(t, c, func(l *link) { l.patience = patience }, members...)
}

// linkWith is one end that is changed before it listens.
func linkWith(t *testing.T, c *tls.Config, change func(*link), members ...string) *link {
	t.Helper()
	l, err := newLink(c, slog.New(slog.DiscardHandler))
	must(t, err)
	change(l)
	l.member = func(id string) bool {
		for _, m := range members {
			if m == id {
				return true
			}
		}
		return false
	}
	l.memberAt = func(string) string { return "" }
	l.meets = func(string) {}
	l.serve = func(ctx context.Context, peer string, conn net.Conn) {
		serveCalls(ctx, peer, conn, func(_ context.Context, peer string, _ callKind, _ []byte) (any, error) { return peer, nil })
	}
	must(t, l.listen("127.0.0.1:0", ""))
	l.accept()
	t.Cleanup(func() { l.Close() })
	return l
}

// ask calls over a link and says who the other end took the caller for.
func ask(t *testing.T, from, to *link, id string) (string, error) {
	t.Helper()
	c := newCaller(func(ctx context.Context) (net.Conn, error) {
		return from.dial(ctx, id, to.listener.Addr().String(), protocolCall)
	})
	defer c.Close()
	var who string
	err := c.call(within(t, 5*time.Second), callStatus, struct{}{}, &who)
	return who, err
}

func TestMembersOfOneCAMayTalk(t *testing.T) {
	ca := newAuthority(t)
	a := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2")
	b := testLink(t, ca.tls("node-2"), "node-2", "node-1", "node-2")
	if who, err := ask(t, a, b, "node-2"); err != nil || who != "node-1" {
		t.Errorf("%q, %v", who, err)
	}
}

func TestForeignCAIsRefusedAtBothEnds(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	ours := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2")
	theirs := testLink(t, foreign.tls("node-2"), "node-2", "node-1", "node-2")
	if _, err := ask(t, theirs, ours, "node-1"); err == nil {
		t.Error("a node of another CA was served")
	}
	if _, err := ask(t, ours, theirs, "node-2"); err == nil {
		t.Error("a node of another CA was asked")
	}
	// The dialler trusts us: it is our side that refuses.
	blind := foreign.tls("node-2")
	blind.RootCAs = ca.pool
	if _, err := ask(t, testLink(t, blind, "node-2", "node-1"), ours, "node-1"); err == nil {
		t.Error("a certificate of another CA was accepted")
	}
}

func TestNodeThatIsNoMemberIsRefused(t *testing.T) {
	ca := newAuthority(t)
	a := testLink(t, ca.tls("node-9"), "node-9", "node-1")
	b := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2")
	if _, err := ask(t, a, b, "node-1"); err == nil {
		t.Error("a node outside the configuration was served")
	}
}

func TestAnotherNodeAtTheAddressIsRefused(t *testing.T) {
	ca := newAuthority(t)
	a := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2", "node-3")
	b := testLink(t, ca.tls("node-2"), "node-2", "node-1", "node-2", "node-3")
	if _, err := ask(t, a, b, "node-3"); err == nil || !errors.Is(err, errNotSent) {
		t.Errorf("asking node-3 at node-2's address: %v, want it not sent", err)
	}
}

// A certificate that has a node's name among others is not that node's.
func TestPeerSpeaksForTheFirstNameOfItsCertificateAlone(t *testing.T) {
	ca := newAuthority(t)
	a := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2", "node-3")
	b := testLink(t, ca.tls("node-3", "node-2"), "node-3", "node-1", "node-2", "node-3")
	if who, err := ask(t, a, b, "node-3"); err != nil || who != "node-1" {
		t.Errorf("%q, %v", who, err)
	}
	if _, err := ask(t, a, b, "node-2"); err == nil || !errors.Is(err, errNotSent) {
		t.Errorf("asking node-2 where node-3 has its name too: %v, want it not sent", err)
	}
}

// Nodes of two incarnations of a cluster do not talk, and each is told why; one
// that has no state yet belongs to either.
func TestNodesOfAnotherIncarnationAreRefused(t *testing.T) {
	ca := newAuthority(t)
	end := func(id string, of incarnation, told *atomic.Int32) *link {
		return linkWith(t, ca.tls(id), func(l *link) {
			l.own = func() incarnation { return of }
			l.outdated, l.superseded = func(error) { told.Add(1) }, func(error) { told.Add(1) }
		}, "node-1", "node-2")
	}
	for name, c := range map[string]struct {
		one, other incarnation
		ok         bool
	}{
		"the same":          {incarnation{epoch: 1, state: true}, incarnation{epoch: 1, state: true}, true},
		"one without state": {incarnation{epoch: 1, state: true}, incarnation{epoch: 0, state: false}, true},
		"an earlier one":    {incarnation{epoch: 1, state: true}, incarnation{epoch: 0, state: true}, false},
		"a later one":       {incarnation{epoch: 1, state: true}, incarnation{epoch: 2, state: true}, false},
	} {
		var told atomic.Int32
		_, err := ask(t, end("node-1", c.one, &told), end("node-2", c.other, &told), "node-2")
		if (err == nil) != c.ok || (told.Load() > 0) == c.ok {
			t.Errorf("%s: %v, told %d times", name, err, told.Load())
		}
	}
}

func TestOldTLSAndStrangeProtocolsAreRefused(t *testing.T) {
	ca := newAuthority(t)
	l := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2")
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":        func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12; c.NextProtos = []string{protocolCall} },
		"no ALPN":        func(c *tls.Config) {},
		"another ALPN":   func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"no certificate": func(c *tls.Config) { c.Certificates = nil; c.NextProtos = []string{protocolCall} },
	} {
		t.Run(name, func(t *testing.T) {
			c := ca.tls("node-2")
			c.ServerName = "node-1"
			change(c)
			conn, err := tls.Dial("tcp", l.listener.Addr().String(), c)
			if err != nil {
				return
			}
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
			// With TLS 1.3 a client learns of its refusal when it reads. A node would say
			// this, and be answered.
			said := incarnation{}.encode()
			_, _ = conn.Write(said[:]) // it may be refused already
			if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("the connection is kept: %v", err)
			}
		})
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestSilentConnectionsAreBoundedAndDropped(t *testing.T) {
	ca := newAuthority(t)
	l := patientLink(t, 300*time.Millisecond, ca.tls("node-1"), "node-1", "node-1", "node-2")
	conns := make([]net.Conn, maxStrangers+8)
	for i := range conns {
		c, err := net.Dial("tcp", l.listener.Addr().String())
		must(t, err)
		defer c.Close()
		conns[i] = c
	}
	began := time.Now()
	for _, c := range conns {
		must(t, c.SetReadDeadline(began.Add(handshakeTime)))
		if _, err := io.ReadAll(c); err != nil && isTimeout(err) {
			t.Fatalf("a connection that says nothing is still open after %s", time.Since(began))
		}
	}
	// And members get through again.
	b := testLink(t, ca.tls("node-2"), "node-2", "node-1", "node-2")
	if _, err := ask(t, b, l, "node-1"); err != nil {
		t.Error(err)
	}
}

// Strangers who say nothing keep no member away, and fill neither memory
// nor the log.
func TestMembersGetThroughAFloodOfStrangers(t *testing.T) {
	ca := newAuthority(t)
	l := patientLink(t, time.Minute, ca.tls("node-1"), "node-1", "node-1", "node-2")
	var log bytes.Buffer
	l.logger = slog.New(slog.NewTextHandler(&log, nil))
	const strangers = 3 * maxStrangers
	for range strangers {
		c, err := net.Dial("tcp", l.listener.Addr().String())
		must(t, err)
		defer c.Close()
	}
	b := testLink(t, ca.tls("node-2"), "node-2", "node-1", "node-2")
	if who, err := ask(t, b, l, "node-1"); err != nil || who != "node-2" {
		t.Errorf("%q, %v", who, err)
	}
	eventually(t, "those who made room", func() bool { return l.refused.Load() > strangers-maxStrangers })
	l.mu.Lock()
	waiting := len(l.strangers)
	l.mu.Unlock()
	must(t, l.Close())
	if waiting != maxStrangers-1 || len(l.strangers) != 0 {
		t.Errorf("%d strangers wait, %d after the end", waiting, len(l.strangers))
	}
	if lines := strings.Count(log.String(), "\n"); lines == 0 || lines > 20 {
		t.Errorf("%d lines of log", lines)
	}
}

func TestOnePeerHasABoundedNumberOfConnections(t *testing.T) {
	ca := newAuthority(t)
	a := testLink(t, ca.tls("node-1"), "node-1", "node-1", "node-2")
	b := testLink(t, ca.tls("node-2"), "node-2", "node-1", "node-2")
	for range maxPerPeer {
		_, err := a.dial(within(t, 5*time.Second), "node-2", b.listener.Addr().String(), protocolCall)
		must(t, err)
	}
	if _, err := a.dial(within(t, 5*time.Second), "node-2", b.listener.Addr().String(), protocolCall); err == nil {
		t.Errorf("connection %d to one peer", maxPerPeer+1)
	}
}

func TestMissingTrustIsAnErrorAtOpen(t *testing.T) {
	c := newAuthority(t).tls("node-1")
	c.RootCAs = nil
	if _, err := newLink(c, slog.Default()); err == nil || !strings.Contains(err.Error(), "RootCAs") {
		t.Errorf("%v, want the missing field named", err)
	}
}

func TestCallsOverlapOnOneConnection(t *testing.T) {
	here, there := net.Pipe()
	release := make(chan struct{})
	go serveCalls(context.Background(), "node-1", there, func(ctx context.Context, _ string, kind callKind, _ []byte) (any, error) {
		if kind == callConfirm {
			<-release
		}
		return uint8(kind), nil
	})
	c := newCaller(func(context.Context) (net.Conn, error) { return here, nil })
	defer c.Close()
	slow := make(chan error, 1)
	go func() { slow <- c.call(within(t, 5*time.Second), callConfirm, struct{}{}, new(uint8)) }()
	for range 3 * maxCalls {
		must(t, c.call(within(t, 5*time.Second), callStatus, struct{}{}, new(uint8)))
	}
	close(release)
	must(t, <-slow)
}

func TestLostAnswerIsNotTakenForNotSent(t *testing.T) {
	here, there := net.Pipe()
	c := newCaller(func(context.Context) (net.Conn, error) { return here, nil })
	go func() {
		var q callRequest
		readFrame(bufio.NewReader(there), &q) // it was understood, and maybe done
		there.Close()
	}()
	err := c.call(within(t, 5*time.Second), callPropose, struct{}{}, nil)
	if err == nil || errors.Is(err, errNotSent) || errors.Is(err, ErrNotCommitted) {
		t.Errorf("%v: the peer had the request", err)
	}
}

func TestErrorsKeepTheirKindAcrossTheLink(t *testing.T) {
	for _, kind := range []error{ErrNotCommitted, ErrUnknown, ErrNoLeader} {
		r := callReply{Code: codeOf(kindError{kind, errors.New("why")}), Text: "why"}
		for _, other := range []error{ErrNotCommitted, ErrUnknown, ErrNoLeader} {
			if errors.Is(r.err(), other) != (kind == other) {
				t.Errorf("%v arrives as %v", kind, r.err())
			}
		}
	}
	if err := (&callReply{Code: 200}).err(); !errors.Is(err, ErrUnknown) {
		t.Errorf("a code of a later release says %v, want nothing certain", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, v := range []any{callRequest{ID: 1, Kind: callStatus, Body: []byte{0xa0}}, callReply{ID: 2, Text: "x"}} {
		here, there := net.Pipe()
		go func() { writeFrame(here, bufio.NewWriter(here), v); here.Close() }()
		b, err := io.ReadAll(there)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var q callRequest
		var r callReply
		if err := readFrame(bufio.NewReader(bytes.NewReader(b)), &q); err == nil && len(q.Body) > len(b) {
			t.Errorf("body of %d octets from %d", len(q.Body), len(b))
		}
		_ = readFrame(bufio.NewReader(bytes.NewReader(b)), &r)
	})
}

func TestCallGivesUpWhileAnotherOneDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done() // nobody is there
			return nil, ctx.Err()
		})
		go c.call(within(t, time.Hour), callStatus, struct{}{}, nil)
		synctest.Wait()
		began := time.Now()
		err := c.call(within(t, time.Second), callStatus, struct{}{}, nil)
		if took := time.Since(began); !errors.Is(err, errNotSent) || took != time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

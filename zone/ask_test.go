package zone

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func asked(t testing.TB, tree *Tree) (*Asker, context.Context) {
	t.Helper()
	a := NewAsker(tree)
	t.Cleanup(a.Close)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return a, ctx
}

// questionsOf are of each outcome that removes or shows something.
func questionsOf(t testing.TB) []Question {
	t.Helper()
	var list []Question
	for _, one := range []struct {
		name string
		typ  Type
	}{
		{"short.p-dns.test", TypeTXT}, {"short.p-dns.test", TypeA}, {"nothing.p-dns.test", TypeTXT},
		{"elsewhere.example", TypeA}, {"p-dns.test", TypeSOA}, {"p-dns.test", TypeNS},
	} {
		n, err := ParseName(one.name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Question{n, one.typ})
	}
	return list
}

func TestAskerSharesOneConnection(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	a, ctx := asked(t, packetTree(t))
	questions := questionsOf(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			own := append(questions[i%len(questions):len(questions):len(questions)], questions[:i%len(questions)]...)
			replies, err := a.Ask(ctx, s.Addresses()[0].String(), own)
			if err != nil {
				t.Error(err)
				return
			}
			for j, reply := range replies {
				if wire, err := own[j].message(0); err != nil || string(reply[headerSize:len(wire)]) != string(wire[headerSize:]) {
					t.Errorf("%s has the reply to another question: %v", own[j], err)
				}
			}
		})
	}
	wg.Wait()
	if open := len(s.snapshot()); open != 1 {
		t.Errorf("%d connections", open)
	}
}

func TestAskerGoesOnWhereAServerEndsItsConnection(t *testing.T) {
	l := defaultLimits()
	l.queries = 9 // then the server ends a connection, in the middle of a part
	s := serve(t, l, "127.0.0.1")
	a, ctx := asked(t, packetTree(t))
	for range 20 {
		if _, err := a.Ask(ctx, s.Addresses()[0].String(), questionsOf(t)); err != nil {
			t.Fatal(err)
		}
	}
	many := serve(t, defaultLimits(), "127.0.0.1")
	var questions []Question
	for len(questions) < 3*askReused {
		questions = append(questions, questionsOf(t)...)
	}
	if replies, err := a.Ask(ctx, many.Addresses()[0].String(), questions); err != nil || len(replies) != len(questions) {
		t.Errorf("%d replies to %d questions: %v", len(replies), len(questions), err)
	}
}

// fake answers the questions of each connection by a function; nil: not at all.
func fakeServer(t testing.TB, answer func(query []byte) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					var size [2]byte
					if _, err := io.ReadFull(conn, size[:]); err != nil {
						return
					}
					query := make([]byte, binary.BigEndian.Uint16(size[:]))
					if _, err := io.ReadFull(conn, query); err != nil {
						return
					}
					if reply := answer(query); reply != nil {
						conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestAskerBelievesNoReplyToAnotherQuestion(t *testing.T) {
	a, ctx := asked(t, packetTree(t))
	server := fakeServer(t, func(query []byte) []byte {
		reply := append([]byte{}, query...)
		reply[2] |= 0x80
		reply[headerSize+1] ^= 1 // another name
		return reply
	})
	if _, err := a.Ask(ctx, server, questionsOf(t)[:1]); err == nil || !strings.Contains(err.Error(), server) {
		t.Error(err)
	}
	short := fakeServer(t, func(query []byte) []byte { return query[:headerSize-1] })
	if _, err := a.Ask(ctx, short, questionsOf(t)[:1]); err == nil {
		t.Error("a reply without a header was taken")
	}
}

// A server that falls silent may have gone without a word: the connection to it is
// not used again.
func TestAskerLeavesASilentConnection(t *testing.T) {
	a, ctx := asked(t, packetTree(t))
	silent := true
	var mu sync.Mutex
	server := fakeServer(t, func(query []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if silent {
			return nil
		}
		query[2] |= 0x80
		return query
	})
	bounded, cancel := context.WithTimeout(ctx, askSilence+100*time.Millisecond)
	defer cancel()
	if _, err := a.Ask(bounded, server, questionsOf(t)[:1]); err == nil {
		t.Fatal("no reply is taken for one")
	}
	mu.Lock()
	silent = false
	mu.Unlock()
	eventually := time.Now().Add(patience)
	for time.Now().Before(eventually) {
		if _, c := a.kept(server, 0); c == nil {
			break
		}
	}
	if _, err := a.Ask(ctx, server, questionsOf(t)[:1]); err != nil {
		t.Error(err)
	}
}

// TestSightHoldsWhatAServerSaysAgainstTheTree: what is there, what is not, and what
// is refused; serials aside.
func TestSightHoldsWhatAServerSaysAgainstTheTree(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	same := packetTree(t)
	e := same.Edit()
	e.SetSerial(1, 4711)
	e.Commit()
	a, ctx := asked(t, same)
	if why, err := a.Sight(s.Addresses()[0].String(), questionsOf(t)).Look(ctx); why != "" || err != nil {
		t.Errorf("%s, %v", why, err)
	}
	empty, ctx := asked(t, NewTree())
	sight := empty.Sight(s.Addresses()[0].String(), questionsOf(t))
	why, err := sight.Look(ctx)
	if err != nil || !strings.Contains(why, "answers otherwise to TXT of short.p-dns.test.: 1 records") {
		t.Errorf("%s, %v", why, err)
	}
	if len(sight.open) != len(questionsOf(t))-1 { // both refuse elsewhere.example
		t.Errorf("%d are open", len(sight.open))
	}
	if why, err := sight.Look(ctx); why == "" || err != nil {
		t.Errorf("a second look: %q, %v", why, err)
	}
}

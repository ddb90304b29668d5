package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/zone"
)

// What lives at the addresses of those that are to be given up is told apart by what it
// shows, not by what it says.
func TestRecoveryFindsWhoLives(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go serve(c)
			}
		}()
		return l.Addr().String()
	}
	nobody := freeAddresses(t, 1)[0]
	node := testLink(t, ca.tls("node-2"), "node-2", "node-2").listener.Addr().String()
	stranger := testLink(t, foreign.tls("node-2"), "node-2", "node-2").listener.Addr().String()
	for name, c := range map[string]struct{ at, want string }{
		"nobody":           {nobody, ""},
		"a node":           {node, "node node-2 lives at " + node},
		"another CA's":     {stranger, ""},
		"another protocol": {listen(func(c net.Conn) { io.WriteString(c, "220 mail.example ESMTP\r\n"); c.Close() }), ""},
		"one that hangs":   {listen(func(c net.Conn) { io.Copy(io.Discard, c) }), "does not say what it is"},
		"one with no room": {listen(func(c net.Conn) { c.Close() }), "does not say what it is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &Recovery{Lost: []Member{{ID: "node-2", Address: c.at, Voter: true}}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			got := r.Living(ctx, ca.pool)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("%q", got)
			}
		})
	}
}

// Old nodes whose node links cannot be reached may still answer the world.
func TestRecoveryFindsWhoAnswersDNS(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	seed(t, c.leader())
	must(t, c.leader().WaitServed(within(t, 10*time.Second), c.leader().Machine().Index()))
	c.kill("node-1")
	r, err := OpenRecovery("node-1", c.data("node-1"), "", slog.New(slog.DiscardHandler))
	must(t, err)
	defer r.Close()
	reply := func(flags, rcode byte) []byte { return []byte{0, 0, flags, rcode, 0, 0, 0, 0, 0, 0, 0, 0} }
	for name, at := range map[string]struct {
		reply []byte
		err   error
		want  []string
	}{
		"nobody":              {nil, errors.New("refused"), nil},
		"an authority for it": {reply(0x84, 0), nil, []string{"192.0.2.53:53 answers DNS for p-dns.test."}},
		"a resolver":          {reply(0x80, 0), nil, nil},
		"another's authority": {reply(0x84, 5), nil, nil},
		"not even a header":   {[]byte{0}, nil, nil},
	} {
		got := r.answering(t.Context(), func(_ context.Context, server string, q []zone.Question) ([][]byte, error) {
			if len(q) != 1 || q[0].Name.String() != "p-dns.test." {
				t.Errorf("asked for %v", q)
			}
			if server != "192.0.2.53:53" {
				return nil, errors.New("refused")
			}
			return [][]byte{at.reply}, at.err
		})
		if !slices.Equal(got, at.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// What was said of nodes that are given up does not outlive them: another of the same
// name would not be asked for its answers.
func TestRecoveryForgetsWhatWasSaidOfTheLost(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	_, index, err := c.leader().Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.SetServing{Node: "node-2", Statement: "it is off"})
	must(t, err)
	c.waitAll(index)
	c.stop("node-1")
	c.stop("node-2")
	c.kill("node-3")
	r, err := OpenRecovery("node-3", c.data("node-3"), "", slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, r.Commit("both are shredded"))
	must(t, r.Close())
	c.members = []Member{c.member("node-3")}
	c.start("node-3")
	m := c.leader().Machine()
	if off := m.OffNodes(); len(off) > 0 {
		t.Errorf("still off: %v", off)
	}
	told := false
	for a := range m.Audit(0) {
		told = told || a.Command == "Note" && a.Subject == "node-3" && a.Reason == "both are shredded" && strings.HasSuffix(a.Summary, "given up: node-1, node-2")
	}
	if !told {
		t.Error("the audit does not say who was given up, and why")
	}
}

package zone

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// FuzzTCPStream sends arbitrary octets over a connection, in two parts, and
// closes its own half. What comes back has to be the replies to the messages in
// them, each with its length, in order, up to the first that gets none.
func FuzzTCPStream(f *testing.F) {
	framed := func(messages ...[]byte) (stream []byte) {
		for _, m := range messages {
			stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(m))), m...)
		}
		return stream
	}
	seeds := seedQueries(f)
	for _, q := range seeds {
		f.Add(framed(q, seeds[0]), uint16(1))
	}
	f.Add(framed(seeds...), uint16(100))
	f.Add(framed(append(bytes.Clone(seeds[0]), make([]byte, maxTCPQuery)...), seeds[0]), uint16(maxTCPQuery+1))
	f.Add(framed(nil, seeds[0]), uint16(0))
	f.Add([]byte{0xff, 0xff, 0}, uint16(2))
	s := serve(f, defaultLimits(), "127.0.0.1")
	address := s.Addresses()[0]
	model := newResponder(s.config.Tree, s.config.NSID, s.guard)
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		if len(stream) > 4*maxTCPQuery {
			return // socket buffers hold this much and its replies
		}
		conn, err := net.Dial("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		at := min(int(cut), len(stream))
		for _, part := range [][]byte{stream[:at], stream[at:]} {
			if _, err := conn.Write(part); err != nil && len(part) > 0 {
				break // it has heard enough
			}
		}
		_ = conn.(*net.TCPConn).CloseWrite() // it may be closed from the other side
		got, _ := io.ReadAll(conn)           // reset where it ended the connection
		want, silent := repliesTo(model, stream)
		compareReplies(t, got, want, silent)
	})
}

// repliesTo are the replies to the whole messages of a stream, and whether one
// that gets none ended it.
func repliesTo(r *Responder, stream []byte) (replies [][]byte, silent bool) {
	r.begin(time.Now())
	for len(stream) >= lengthSize {
		length := int(binary.BigEndian.Uint16(stream))
		stream = stream[lengthSize:]
		looked := min(length, maxTCPQuery)
		if len(stream) < looked {
			break
		}
		reply := r.reply(nil, stream[:looked], &source{tcp: true})
		if len(reply) == 0 {
			return replies, true
		}
		replies = append(replies, reply)
		stream = stream[min(length, len(stream)):]
	}
	return replies, false
}

// compareReplies compares lengths, headers and questions: a cookie has the time
// in it. Where the server ended the connection replies may be lost at the end.
func compareReplies(t *testing.T, got []byte, want [][]byte, lossy bool) {
	t.Helper()
	for i, w := range want {
		if len(got) < lengthSize || len(got) < lengthSize+int(binary.BigEndian.Uint16(got)) {
			if !lossy {
				t.Fatalf("reply %d of %d does not come; left %x", i, len(want), got)
			}
			return
		}
		length := int(binary.BigEndian.Uint16(got))
		reply := got[lengthSize : lengthSize+length]
		if length != len(w) || !bytes.Equal(reply[:headerSize], w[:headerSize]) {
			t.Fatalf("reply %d is\n%x, want\n%x", i, reply, w)
		}
		got = got[lengthSize+length:]
	}
	if len(got) > 0 {
		t.Fatalf("%d octets behind the last reply: %x", len(got), got)
	}
}

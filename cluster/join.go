package cluster

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"authd/cluster/state"
)

// A node that joins has nothing but a join token. It makes its own key, connects
// to any member, accepts that one because its chain ends in the CA whose
// fingerprint is in the token, and shows the token's secret with a request for a
// certificate. The member has the use of the token committed, so that it is good
// once in the whole cluster, issues the certificate, and has the node added. What
// the token does not bring is the key-encryption key: who steals one gets a node
// in that cannot read a private half.

const (
	// protocolJoin is the node link's third protocol (RFC 7301), without a
	// certificate of the client.
	protocolJoin = "authd-join/1"
	// joinTime bounds a join, maxJoins how many are under way, maxJoinFrame what a
	// stranger may send.
	joinTime     = 20 * time.Second
	maxJoins     = 4
	maxJoinFrame = 16 << 10
	// joinPatience is how long a member may be behind the one that made a token.
	joinPatience = time.Second

	joinPrefix = "authd_join"
	secretSize = 20
)

// JoinToken lets one node join once.
type JoinToken struct {
	ID          string // of the node
	Secret      [secretSize]byte
	Fingerprint [sha256.Size]byte // of the CA's certificate
}

// Text is what is handed to the new node.
func (t JoinToken) Text() string {
	return fmt.Sprintf("%s_%s_%x_%x", joinPrefix, t.ID, t.Secret, t.Fingerprint)
}

// String names the node and not the secret.
func (t JoinToken) String() string { return "join token of " + t.ID }

// GoString is String.
func (t JoinToken) GoString() string { return t.String() }

// Format is String, whatever the verb.
func (t JoinToken) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue is String.
func (t JoinToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText is String: no encoding holds the secret but Text.
func (t JoinToken) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// ParseJoinToken reads Text. The error does not repeat it.
func ParseJoinToken(text string) (t JoinToken, err error) {
	parts := strings.Split(strings.TrimSpace(text), "_")
	bad := errors.New("not a join token: want authd_join_NODE_SECRET_FINGERPRINT, as add-peer printed it, whole")
	if len(parts) != 5 || parts[0]+"_"+parts[1] != joinPrefix || parts[2] == "" ||
		len(parts[3]) != hex.EncodedLen(len(t.Secret)) || len(parts[4]) != hex.EncodedLen(len(t.Fingerprint)) {
		return t, bad
	}
	t.ID = parts[2]
	if _, err := hex.Decode(t.Secret[:], []byte(parts[3])); err != nil {
		return t, bad
	}
	if _, err := hex.Decode(t.Fingerprint[:], []byte(parts[4])); err != nil {
		return t, bad
	}
	return t, nil
}

func (t JoinToken) hash() [32]byte { return sha256.Sum256(append([]byte(t.ID+"_"), t.Secret[:]...)) }

// Invite makes a join token for a node at an address. Where the node is a member
// already the token brings it a new certificate and nothing else.
func (n *Node) Invite(ctx context.Context, who Actor, m Member, life time.Duration) (JoinToken, time.Time, error) {
	authority := n.Machine().Authority()
	if len(authority.Certificate) == 0 {
		return JoinToken{}, time.Time{}, errNoAuthority
	}
	t := JoinToken{ID: m.ID, Fingerprint: sha256.Sum256(authority.Certificate)}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return JoinToken{}, time.Time{}, err
	}
	until := n.c.Now().Add(life)
	results, _, err := n.Propose(ctx, who, state.InviteNode{Invitation: state.Invitation{
		ID: m.ID, Address: m.Address, Voter: m.Voter, Hash: t.hash(), ExpiresAt: until.Unix(),
	}})
	if err == nil && results[0].Refusal != nil {
		err = fmt.Errorf("inviting %s: %w", m.ID, results[0].Refusal)
	}
	if err != nil {
		return JoinToken{}, time.Time{}, err
	}
	return t, until, nil
}

type joinAsk struct {
	ID     string `cbor:"1,keyasint"`
	Secret []byte `cbor:"2,keyasint"`
	CSR    []byte `cbor:"3,keyasint"` // PKCS #10 (RFC 2986): its key; its names are not used
}

type joinReply struct {
	Error     string   `cbor:"1,keyasint,omitempty"`
	Chain     [][]byte `cbor:"2,keyasint"`
	ClusterID string   `cbor:"3,keyasint"`
	Address   string   `cbor:"4,keyasint"` // the node's own, as the operator gave it
}

// admit answers one request to join.
func (n *Node) admit(ctx context.Context, c net.Conn) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	// The request comes right behind the handshake; who keeps it back keeps others away.
	c.SetDeadline(time.Now().Add(handshakeTime))
	var ask joinAsk
	err := readFrameOf(bufio.NewReader(c), &ask, maxJoinFrame)
	c.SetDeadline(time.Now().Add(joinTime))
	if err != nil {
		n.link.refuse("reading a request to join", hostOf(c), "from", c.RemoteAddr().String(), "error", err)
		return
	}
	reply, err := n.join(ctx, ask, c.RemoteAddr().String())
	if err != nil {
		n.link.refuse("a node was not let in", hostOf(c), "node", shortened(ask.ID), "from", c.RemoteAddr().String(), "error", err)
		reply = joinReply{Error: err.Error()}
	} else {
		n.logger.Info("node let in", "node", ask.ID, "from", c.RemoteAddr().String())
	}
	if err := writeFrame(c, bufio.NewWriter(c), reply); err != nil {
		n.logger.Warn("answering a request to join", "node", shortened(ask.ID), "error", err)
	}
}

func shortened(id string) string { return id[:min(len(id), 63)] }

func (n *Node) join(ctx context.Context, ask joinAsk, from string) (joinReply, error) {
	if len(ask.Secret) != secretSize {
		return joinReply{}, errors.New("that is no join token")
	}
	t := JoinToken{ID: ask.ID, Secret: [secretSize]byte(ask.Secret)}
	// Looked up here first: a stranger must not be able to fill the log.
	invited, ok := n.awaitInvitation(ctx, t)
	if !ok {
		return joinReply{}, errors.New("the join token is not known here, was used before, or has expired: ask for another")
	}
	request, err := x509.ParseCertificateRequest(ask.CSR)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return joinReply{}, fmt.Errorf("reading certificate request: %w", err)
	}
	host, _, err := net.SplitHostPort(invited.Address)
	if err != nil {
		return joinReply{}, fmt.Errorf("address of %s: %w", invited.ID, err)
	}
	// Before the token is spent: what can fail, fails now.
	chain, err := n.issue(request.PublicKey, invited.ID, []string{host})
	if err != nil {
		return joinReply{}, err
	}
	results, _, err := n.Propose(ctx, Actor{ID: "join", Source: from}, state.AdmitNode{ID: invited.ID, Hash: t.hash()})
	if err == nil && results[0].Refusal != nil {
		err = results[0].Refusal
	}
	if err != nil {
		return joinReply{}, fmt.Errorf("using the join token: %w", err)
	}
	if !contains(n.members(), invited.ID) {
		// Without a vote until it has caught up (promote).
		if err := n.AddPeer(ctx, Member{ID: invited.ID, Address: invited.Address}); err != nil {
			return joinReply{}, fmt.Errorf("adding %s: %w; ask for another join token", invited.ID, err)
		}
	}
	return joinReply{Chain: chain, ClusterID: n.Machine().Settings().ClusterID, Address: invited.Address}, nil
}

// awaitInvitation finds the open invitation that a token is for. This node may be
// a moment behind the one that made it.
func (n *Node) awaitInvitation(ctx context.Context, t JoinToken) (state.Invitation, bool) {
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	for {
		changed := n.fsm.next()
		i, ok := n.Machine().Invited(t.ID)
		if ok && i.Good(t.hash(), n.c.Now().Unix()) {
			return i, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return i, false
		}
	}
}

// Joined is what a node gets that joins.
type Joined struct {
	Chain     [][]byte // its certificate and the CA's, DER
	ClusterID string
	Address   string // of its node link
}

// Join asks a member at an address for a certificate over csr.
func Join(ctx context.Context, address string, t JoinToken, csr []byte) (Joined, error) {
	return joinOver(ctx, tcp{}, address, t, csr)
}

func joinOver(ctx context.Context, over network, address string, t JoinToken, csr []byte) (Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	conn, err := over.Dial(ctx, address)
	if err != nil {
		return Joined{}, fmt.Errorf("joining by way of %s: %w", address, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	c := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocolJoin},
		InsecureSkipVerify: true, // by the fingerprint instead, which a name says nothing about
		VerifyConnection:   func(s tls.ConnectionState) error { return t.verify(s.PeerCertificates) },
	})
	var reply joinReply
	// Nothing leaves before the handshake has told whose ear it reaches.
	if err = c.HandshakeContext(ctx); err == nil {
		err = writeFrame(c, bufio.NewWriter(c), joinAsk{ID: t.ID, Secret: t.Secret[:], CSR: csr})
	}
	if err == nil {
		err = readFrameOf(bufio.NewReader(c), &reply, maxJoinFrame)
	}
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	if err == nil && len(reply.Chain) != 2 {
		err = errors.New("the answer holds no certificate")
	}
	if err != nil {
		return Joined{}, fmt.Errorf("joining by way of %s: %w", address, err)
	}
	if sha256.Sum256(reply.Chain[1]) != t.Fingerprint {
		return Joined{}, fmt.Errorf("joining by way of %s: the certificate is of another CA than the join token names", address)
	}
	return Joined{Chain: reply.Chain, ClusterID: reply.ClusterID, Address: reply.Address}, nil
}

// verify accepts who shows the CA of the fingerprint and a certificate that it signed.
func (t JoinToken) verify(shown []*x509.Certificate) error {
	for _, ca := range shown[1:] {
		sum := sha256.Sum256(ca.Raw)
		if subtle.ConstantTimeCompare(sum[:], t.Fingerprint[:]) == 0 {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := shown[0].Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
	return errors.New("this is not the cluster that the join token is for: its CA is another one")
}

// promoteLag and promoteAfter: a node that joined gets its vote once it has
// answered DNS and been this close behind the leader for that long.
const promoteLag = 250

// promote gives votes to nodes that have caught up, on the leader, and forgets
// invitations that came to their end.
func (n *Node) promote() {
	tick := time.NewTicker(n.tuning.promoteEvery)
	defer tick.Stop()
	since := map[string]time.Time{}
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		if !n.leads() {
			clear(since)
			continue
		}
		for _, i := range n.Machine().Invitations() {
			if i.AdmittedAt == 0 {
				continue
			}
			if err := n.promoteOne(i, since); err != nil {
				n.logger.Warn("giving a node its vote", "node", i.ID, "error", err)
			}
		}
	}
}

func (n *Node) promoteOne(i state.Invitation, since map[string]time.Time) error {
	var member Member
	for _, m := range n.members() {
		if m.ID == i.ID {
			member = m
		}
	}
	if member.ID == "" {
		return nil // added in a moment; where not, the operator asks for another token
	}
	if i.Voter && !member.Voter {
		if !n.closeBehind(member) {
			delete(since, i.ID)
			return nil
		}
		if since[i.ID].IsZero() {
			since[i.ID] = time.Now()
		}
		if time.Since(since[i.ID]) < n.tuning.promoteAfter {
			return nil
		}
		ctx, cancel := context.WithTimeout(n.ctx, changeTime)
		defer cancel()
		member.Voter = true
		if err := n.change(ctx, changeAsk{Op: changeAdd, Member: member}); err != nil {
			return err
		}
		n.logger.Info("node has caught up and votes", "node", i.ID)
	}
	ctx, cancel := context.WithTimeout(n.ctx, changeTime)
	defer cancel()
	_, _, err := n.Propose(ctx, Actor{ID: "members"}, state.SettleNode{ID: i.ID})
	return err
}

// closeBehind says whether a member answers DNS and has nearly all that this node has.
func (n *Node) closeBehind(m Member) bool {
	r, ok := n.askAll(n.ctx, []Member{m})[m.ID]
	return ok && r.Serving && !r.Fenced && r.Applied+promoteLag >= n.fsm.current().Index()
}

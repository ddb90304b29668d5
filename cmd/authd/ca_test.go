package main

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"

	"authd/cluster"
)

// certified makes a node's link TLS with a CA in its own directory.
func certified(t *testing.T, dir, id string) *tls.Config {
	t.Helper()
	ca, err := openAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	c := linkConfig{
		CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, id+".pem"), KeyFile: filepath.Join(dir, id+".key"),
	}
	if err := ca.issue(c.CertFile, c.KeyFile, id, []string{"127.0.0.1", "node.example"}); err != nil {
		t.Fatal(err)
	}
	who, err := cluster.OpenIdentity(cluster.IdentityConfig{
		ID: id, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Renewed: filepath.Join(dir, id+".renewed"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return who.TLS()
}

// shake makes a handshake and returns what either side made of it.
func shake(t *testing.T, server, client *tls.Config, name string) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1}) // TLS 1.3: the client learns of a refusal when it reads
		}
		a.Close()
		done <- err
	}()
	client = client.Clone()
	client.ServerName = name
	c := tls.Client(b, client)
	_, clientErr = c.Read(make([]byte, 1))
	b.Close()
	return <-done, clientErr
}

func TestNodesOfOneCATrustEachOtherByName(t *testing.T) {
	dir := t.TempDir()
	one, two := certified(t, dir, "node-1"), certified(t, dir, "node-2")
	if s, c := shake(t, one, two, "node-1"); s != nil || c != nil {
		t.Errorf("node-2 to node-1: server %v, client %v", s, c)
	}
	if _, c := shake(t, one, two, "node-3"); c == nil {
		t.Error("node-1 passed for node-3")
	}
}

func TestANodeOfAnotherCAIsRefused(t *testing.T) {
	ours, theirs := certified(t, t.TempDir(), "node-1"), certified(t, t.TempDir(), "node-1")
	if s, c := shake(t, ours, theirs, "node-1"); s == nil && c == nil {
		t.Error("a certificate of another CA was taken")
	}
	stranger := theirs.Clone()
	stranger.RootCAs = ours.RootCAs // it trusts us; we must not trust it
	if s, _ := shake(t, ours, stranger, "node-1"); s == nil {
		t.Error("a client with a certificate of another CA was taken")
	}
	stranger.GetClientCertificate = nil
	if s, _ := shake(t, ours, stranger, "node-1"); s == nil {
		t.Error("a client without a certificate was taken")
	}
}

func TestAnInterruptedIssueIsCompleted(t *testing.T) {
	dir := t.TempDir()
	if err := secretFile(filepath.Join(dir, "ca.key"), []byte("half")); err != nil {
		t.Fatal(err)
	}
	certified(t, dir, "node-1")
	info, err := os.Stat(filepath.Join(dir, "node-1.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v (%v)", info.Mode(), err)
	}
}

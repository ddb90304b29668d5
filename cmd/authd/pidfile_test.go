package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The predecessor removes its own process id once it may end. Were the successor's
// written only then, it would fall into the time between the look and the removal.
func TestSuccessorIsWrittenDownBeforeItsPredecessorMayEnd(t *testing.T) {
	dir := t.TempDir()
	l, err := listenSuccessor(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address, done, err := handAddress(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ours, err := net.DialUnix("unixpacket", nil, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	lock, err := lockData(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()

	s := &server{config: &nodeConfig{PIDFile: filepath.Join(dir, "pid")}, logger: slog.New(slog.DiscardHandler)}
	s.next = &succession{lock: lock, from: &predecessor{conn: ours, ended: make(chan struct{})}}
	// A pipe holds up the writing until it has a reader.
	pipe := s.config.PIDFile + ".new"
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.installed(ctx) })
	defer s.tasks.Wait()
	defer running.Wait()
	defer cancel()
	defer func() { // where it failed the writer still waits
		if f, err := os.OpenFile(pipe, os.O_RDWR, 0); err == nil {
			t.Cleanup(func() { f.Close() })
		}
	}()
	theirs.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if m, _, err := receiveHand(theirs); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("told %q (%v) before the successor was written down", m.Kind, err)
	}
	reader, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	theirs.SetReadDeadline(time.Now().Add(10 * time.Second))
	if m, _, err := receiveHand(theirs); err != nil || m.Kind != handServing {
		t.Fatalf("told %q, %v; want %q", m.Kind, err, handServing)
	}
	if _, err := os.Stat(s.config.PIDFile); err != nil {
		t.Error(err)
	}
}

// Command authd is an authoritative DNS server for platforms that send mail for
// their customers: one binary with the server (serve), a whole cluster on
// loopback to try (dev), the preparation of a real one (operator) and a client
// of the API (everything else).
//
// This package wires: configuration, certificates, processes, the command line.
// It decides nothing about DNS, keys or replication. rules_test.go keeps the
// walls between the packages.
//
// # Where things are
//
//   - The command line: cli.go lists the commands, client.go and pages.go speak to
//     the API, output.go and progress.go print.
//   - Commands: zone.go, pool.go, tenant.go, token.go, domain*.go, import*.go,
//     key*.go, timeline.go, rotation.go, audit*.go, events.go, operator*.go, snapshot.go.
//   - A node: serve.go starts it from config*.go; mill.go is its child that makes
//     keys; handover.go and succession.go pass it to another process; collector.go,
//     processors.go and process_linux.go fit the runtime; pidfile.go, log.go, cookies.go.
//   - Making clusters: nodefile.go and ca.go write what nodes need, dev*.go runs one on
//     loopback.
//   - lab*.go: what only a lab build has, and tests with real programs in namespaces.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitDone    = 0
	exitRefused = 1 // asked for something that was refused or could not be done
	exitUsage   = 2 // asked wrongly: nothing was tried
)

// run is the program: main without the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr}
	return a.run(args)
}

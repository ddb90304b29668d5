package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"
)

// app is one run of the program: what every command gets.
type app struct {
	ctx    context.Context // cancelled by SIGINT and SIGTERM
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// commands is the command line.
type commands struct {
	Dev   devCmd   `cmd:"" group:"server" help:"Run a whole cluster on loopback, to try authd and to develop against it."`
	Serve serveCmd `cmd:"" group:"server" help:"Run one node of a cluster from its configuration file."`
	Mill  millCmd  `cmd:"" hidden:"" help:"Make keys for the parent process."`

	Tenant     tenantCmd     `cmd:"" group:"client" help:"Tenants: the platform's customers."`
	Domain     domainCmd     `cmd:"" group:"client" help:"Domains: what customers send from; show the records they must add."`
	Key        keyCmd        `cmd:"" group:"client" help:"DKIM keys of a domain: list, rotate, revoke, fetch for signing."`
	Rotation   rotationCmd   `cmd:"" group:"client" help:"Rotate the keys of many domains: emergencies, drills, canary stages, the way back."`
	Pool       poolCmd       `cmd:"" group:"client" help:"Sending pools: SPF, bounce MX, tracking hosts and key policy that many domains share."`
	Zone       zoneCmd       `cmd:"" group:"client" help:"Platform zones and the operator's records in them."`
	Nameserver nameserverCmd `cmd:"" group:"client" help:"Name servers: names with public addresses, behind which nodes come and go."`
	Token      tokenCmd      `cmd:"" group:"client" help:"API tokens."`
	Audit      auditCmd      `cmd:"" group:"client" help:"Who changed what: list it, and check that nobody altered it."`
	Events     eventsCmd     `cmd:"" group:"client" help:"Follow changes as they happen."`

	Operator operatorCmd `cmd:"" group:"operator" help:"Prepare a real cluster; its members, snapshots."`
	Version  versionCmd  `cmd:"" group:"operator" help:"Print the version."`
}

const description = `Authoritative DNS for platforms that send mail for their customers.

A customer touches their DNS once; SPF, DKIM, bounce MX, DMARC and tracking hosts are
served here from then on, and keys rotate without asking anyone.

New here? "authd dev" starts a cluster of three nodes and prints what to try.`

func (a *app) run(args []string) int {
	var cli commands
	helped := false
	parser, err := kong.New(&cli,
		kong.Name("authd"),
		kong.Description(description),
		kong.Writers(a.stdout, a.stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "server", Title: "Running it:"},
			{Key: "client", Title: "Using it (speaks to the API; --addr and --token, or AUTHD_ADDR and AUTHD_TOKEN):"},
			{Key: "operator", Title: "Operating it:"},
			{Key: "api", Title: "API:"},
		}),
		kong.Bind(a),
	)
	if err != nil {
		panic(err) // the grammar above is wrong
	}
	parsed, err := parser.Parse(args)
	if helped {
		return exitDone
	}
	command := ""
	if err == nil {
		command = parsed.Selected().FullPath()
		err = parsed.Run()
	} else if _, ok := errors.AsType[*kong.ParseError](err); ok {
		err = usageError{err}
	}
	if err == nil {
		return exitDone
	}
	return a.fail(command, err)
}

// asker gives what asks a person a question and reads the line of the answer.
func (a *app) asker() func(question string) (string, error) {
	in := bufio.NewReader(a.stdin) // which may read ahead, so one for all questions
	return func(question string) (string, error) {
		fmt.Fprint(a.stdout, question)
		line, err := in.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			err = nil // the last line need not end
		}
		return line, err
	}
}

// fail prints an error as people need it, and says how to exit. command is what ran.
func (a *app) fail(command string, err error) int {
	fmt.Fprintf(a.stderr, "authd: %v\n", err)
	if hint := remedy(err); hint != "" {
		fmt.Fprintf(a.stderr, "  %s\n", hint)
	}
	if usage, ok := errors.AsType[usageError](err); ok {
		if parse, ok := errors.AsType[*kong.ParseError](usage.error); ok && parse.Context != nil {
			if node := parse.Context.Selected(); node != nil {
				command = "authd " + node.Path()
			}
		}
		fmt.Fprintf(a.stderr, "  try: %s --help\n", cmp.Or(command, "authd"))
		return exitUsage
	}
	return exitRefused
}

// usageError is a wrong command line: nothing was tried.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// versionCmd prints what the build recorded.
type versionCmd struct{}

func (versionCmd) Run(a *app) error {
	_, err := fmt.Fprintln(a.stdout, "authd", version())
	return err
}

// version is the module's version and commit as the build recorded them.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	if text == "" {
		text = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += " " + s.Value
		}
	}
	return text + " " + info.GoVersion
}

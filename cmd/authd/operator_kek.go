package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"authd/api"
	"authd/keys"
)

// kekCmd is `authd operator kek`.
type kekCmd struct {
	Add    kekAddCmd    `cmd:"" help:"Add a fresh key-encryption key to a file. Copy that to every node."`
	Rotate kekRotateCmd `cmd:"" help:"Seal all private halves under another key-encryption key that every node holds."`
	Status kekStatusCmd `cmd:"" help:"Show how many private halves are sealed under which version, and who holds which."`
}

type kekAddCmd struct {
	File string `arg:"" type:"existingfile" help:"The key-encryption key file of a node (keys.kek_file)."`
}

func (kekAddCmd) Help() string {
	return `A line is added; nothing is sealed under it before all nodes have it and rotate is called. Running
nodes see the changed file by themselves.

    authd operator kek add /etc/authd/kek
`
}

func (c *kekAddCmd) Run(a *app) error {
	version, err := keys.AddKeeperVersion(c.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s has version %d now: copy it to every node, then authd operator kek rotate --version %d\n", c.File, version, version)
	return err
}

type kekStatusCmd struct{ clientFlags }

func (kekStatusCmd) Help() string { return "    authd operator kek status\n" }

func (c *kekStatusCmd) Run(s *session) error {
	var w api.Wrapping
	raw, err := s.get(s.ctx, v1("cluster", "kek"), nil, &w)
	if err != nil {
		return err
	}
	return s.show(raw, func(out io.Writer) { printWrapping(out, &w) })
}

func printWrapping(out io.Writer, w *api.Wrapping) {
	row(out, "VERSION", "SEALED UNDER IT", "HELD BY")
	versions := map[uint16][]string{}
	for v := range w.Sealed {
		n, _ := strconv.ParseUint(v, 10, 16)
		versions[uint16(n)] = nil
	}
	for _, n := range w.Nodes {
		for _, v := range n.Versions {
			versions[v] = append(versions[v], n.ID)
		}
		if !n.Answered {
			row(out, "?", "", n.ID+" does not answer")
		}
	}
	list := make([]uint16, 0, len(versions))
	for v := range versions {
		list = append(list, v)
	}
	slices.Sort(list)
	for _, v := range list {
		row(out, v, w.Sealed[strconv.Itoa(int(v))], strings.Join(versions[v], " "))
	}
	if w.Left > 0 {
		fmt.Fprintf(out, "%s still to be sealed under version %d\n", plural(w.Left, "private half"), w.Version)
	}
}

type kekRotateCmd struct {
	clientFlags

	Version uint16 `required:"" help:"The version to seal under; every node must hold it."`
	Reason  string `help:"Why, for the audit."`
	NoWait  bool   `help:"Begin, and leave: it goes on by itself."`
}

func (kekRotateCmd) Help() string {
	return `Refused unless every node holds the version. It goes on by itself when you leave, and across leaders;
asking again shows how far it is. The key of the cluster's CA is among what is sealed anew. Once nothing
is sealed under the old version its line may go from the nodes' files; keep it apart for as long as you
keep a backup that was made before. Without it nothing opens what deleted keys left in logs and backups.

    authd operator kek add /etc/authd/kek        # then copy the file to every node
    authd operator kek rotate --version 2 --reason "an operator left"
`
}

func (c *kekRotateCmd) Run(s *session) error {
	var w api.Wrapping
	raw, err := s.post(s.ctx, v1("cluster", "kek"), nil, api.NewWrapping{Version: c.Version, Reason: c.Reason}, &w)
	if err != nil {
		return err
	}
	bar := newProgress(s.stderr, "sealed anew", w.Left)
	total := w.Left
	for w.Left > 0 && !c.NoWait {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		w = api.Wrapping{} // a version that is gone from the reply must not stay
		if raw, err = s.get(s.ctx, v1("cluster", "kek"), nil, &w); err != nil {
			return fmt.Errorf("it goes on by itself; asking how far it is: %w", err)
		}
		bar.at(max(0, total-w.Left))
	}
	bar.end()
	return s.show(raw, func(out io.Writer) { printWrapping(out, &w) })
}

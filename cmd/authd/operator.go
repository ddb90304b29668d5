package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/term"
)

// operatorCmd is `authd operator`.
type operatorCmd struct {
	Init     operatorInitCmd `cmd:"" help:"Prepare a real cluster: CA, certificates, key-encryption key, first admin token, a file for every node."`
	Join     operatorJoinCmd `cmd:"" help:"Prepare this machine as a node of a cluster that exists, with a join token."`
	KEK      kekCmd          `cmd:"" name:"kek" help:"The key that seals private halves."`
	Raft     raftCmd         `cmd:"" help:"Members of the cluster."`
	Check    checkCmd        `cmd:"" help:"Have all nodes compare their states now."`
	Snapshot snapshotCmd     `cmd:"" help:"Backups of the cluster's state."`
}

// snapshotCmd is `authd operator snapshot`.
type snapshotCmd struct {
	Save    snapshotSaveCmd    `cmd:"" help:"Write the cluster's state to a file."`
	Restore snapshotRestoreCmd `cmd:"" help:"Replace the cluster's state by a saved one."`
	Inspect snapshotInspectCmd `cmd:"" help:"Check a saved snapshot and say what is in it."`
}

type snapshotSaveCmd struct {
	clientFlags
	File string `arg:"" help:"New file."`
}

func (snapshotSaveCmd) Help() string {
	return `Private keys inside are sealed: the file is of no use for signing without the key-encryption key,
and a backup without that key is of no use either. Keep both, apart.

    authd operator snapshot save authd-2026-11-21.snapshot
`
}

// Run writes to a temporary name first: a file under the final name is whole.
func (c *snapshotSaveCmd) Run(s *session) (err error) {
	if _, err := os.Lstat(c.File); err == nil {
		return fmt.Errorf("%s exists: choose another name", c.File)
	}
	s.http.Timeout = bulkTime // gigabytes
	reply, err := s.send(s.ctx, http.MethodGet, v1("cluster", "snapshot"), nil, "", nil, false)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(c.File), ".authd-snapshot-*")
	if err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	n, err := io.Copy(f, reply.Body)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	summary, err := inspectSnapshot(f.Name())
	if err != nil {
		return fmt.Errorf("saving snapshot: what arrived is damaged: %w", err)
	}
	if err := os.Rename(f.Name(), c.File); err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	_, err = fmt.Fprintf(s.stdout, "%s: %d bytes, %s\n", c.File, n, summary)
	return err
}

type snapshotRestoreCmd struct {
	clientFlags
	File        string `arg:"" type:"existingfile" help:"A saved snapshot."`
	WithoutKeys bool   `help:"Restore it although its key-encryption key is lost: DNS answers, and no signer gets a key."`
	Yes         bool   `help:"Do not ask; only on a terminal it does."`
}

func (snapshotRestoreCmd) Help() string {
	return `Everything written since the snapshot is lost, and what is written meanwhile. It is done on all nodes
or, after an error, on none. Zone serials never go back, and names that were given
up stay burned. Every node needs the key-encryption key of the snapshot's cluster first.
On a terminal it asks before.

    authd operator snapshot restore authd-2026-11-21.snapshot
`
}

func (c *snapshotRestoreCmd) Run(s *session) error {
	summary, err := inspectSnapshot(c.File)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // it took the size of the state, which a node beside this may need
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("restoring snapshot: %w", err)
	}
	defer f.Close()
	if in, ok := s.stdin.(*os.File); ok && !c.Yes && term.IsTerminal(int(in.Fd())) {
		if err := c.agreed(s, summary); err != nil {
			return err
		}
	}
	s.http.Timeout = bulkTime
	var query url.Values
	if c.WithoutKeys {
		query = url.Values{"without_keys": {"true"}}
	}
	reply, err := s.send(s.ctx, http.MethodPost, v1("cluster", "snapshot"), query, "application/octet-stream", f, true)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	_, err = fmt.Fprintf(s.stdout, "restored %s\n", summary)
	return err
}

// agreed asks, since a command for another cluster's address is soon typed.
func (c *snapshotRestoreCmd) agreed(s *session, summary string) error {
	answer, err := s.asker()(fmt.Sprintf("It holds %s.\nAll that the cluster at %s has since, or has instead, is lost. Type yes to go on: ", summary, s.base.Host))
	if answer != "yes" {
		return errors.Join(errors.New("nothing was changed: type yes, or give --yes"), err)
	}
	return nil
}

type snapshotInspectCmd struct {
	File string `arg:"" type:"existingfile" help:"A saved snapshot."`
}

func (snapshotInspectCmd) Help() string {
	return `Reads the whole file and checks it; asks nobody.

    authd operator snapshot inspect authd-2026-11-21.snapshot
`
}

func (c *snapshotInspectCmd) Run(a *app) error {
	m, err := readSnapshot(c.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s: whole, %s\n%s", c.File, summarise(m), describeSnapshot(m))
	return err
}

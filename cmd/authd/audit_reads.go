package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"authd/api"
	"authd/cluster"
)

// areReads says whether files are of a journal of key reads: its lines begin so.
func areReads(names []string) (bool, error) {
	if len(names) == 0 {
		return false, nil
	}
	file, err := os.Open(names[0])
	if err != nil {
		return false, err
	}
	defer file.Close()
	begin := make([]byte, 32)
	n, err := io.ReadFull(file, begin)
	if err != nil && n == 0 {
		return false, nil // an empty file is of either kind
	}
	return bytes.HasPrefix(begin[:n], []byte(`{"read":`)) || bytes.HasPrefix(begin[:n], []byte(`{"gap":{"after":`)) && !auditGap(names[0]), nil
}

// auditGap tells a gap of an audit file from one of a journal: it has a hash inside.
func auditGap(name string) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	line, _ := bufio.NewReader(io.LimitReader(file, 4<<10)).ReadBytes('\n')
	var l struct {
		Gap struct {
			Hash *string `json:"hash"`
		} `json:"gap"`
	}
	return json.Unmarshal(line, &l) == nil && l.Gap.Hash != nil
}

// verifyReads checks a journal of key reads, and where it ends.
func (c *auditVerifyCmd) verifyReads(s *session) error {
	var known *api.ReadsJournal
	if c.Node != "" {
		var err error
		if known, err = journalOf(s, c.Node); err != nil {
			return err
		}
	}
	var chain cluster.ReadsChain
	agrees := known == nil || known.Entries == 0
	for _, name := range c.Files {
		err := eachLine(name, func(line []byte) error {
			if _, err := chain.Line(line); err != nil {
				return err
			}
			seq, hash := chain.End()
			agrees = agrees || seq == known.Entries && hash.String() == known.Head
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := chain.Empty(); err != nil {
		return err
	}
	seq, hash := chain.End()
	if !agrees {
		return fmt.Errorf("the cluster knows of %d entries of %s, the last with hash %s: the files do not have it, and end with entry %d", known.Entries, c.Node, known.Head, seq)
	}
	for _, g := range chain.Gaps {
		fmt.Fprintf(s.stderr, "entries %d to %d are missing: %s\n", g.After+1, g.Until, g.Why)
	}
	raw, err := json.Marshal(map[string]any{"entries": chain.Count, "last": seq, "hash": hash.String(), "gaps": len(chain.Gaps)})
	if err != nil {
		return err
	}
	if err := s.say(raw, "%s, to %d: the chain is whole; it ends with %s", plural(chain.Count, "key read"), seq, hash); err != nil {
		return err
	}
	if len(chain.Gaps) > 0 && !c.Gaps {
		return fmt.Errorf("%s in the files: --gaps accepts them", plural(len(chain.Gaps), "gap"))
	}
	return nil
}

func journalOf(s *session, node string) (*api.ReadsJournal, error) {
	var all api.ReadsJournals
	if _, err := s.get(s.ctx, v1("audit", "reads"), nil, &all); err != nil {
		return nil, err
	}
	for i := range all.Items {
		if all.Items[i].Node == node {
			return &all.Items[i], nil
		}
	}
	return nil, fmt.Errorf("the cluster knows of no journal of key reads of %q", node)
}

// eachLine reads a file of whole lines.
func eachLine(name string, each func(line []byte) error) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err == io.EOF {
			return fmt.Errorf("line %d is cut short: is its node still writing it?", number)
		}
		if err != nil {
			return err
		}
		if err := each(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
}

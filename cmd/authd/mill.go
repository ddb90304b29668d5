package main

import (
	"os"

	"authd/keys"
)

// millCmd is the child process that makes keys; only serve starts it.
type millCmd struct{}

func (millCmd) Run(a *app) error {
	if err := harden(); err != nil {
		return err
	}
	return keys.RunMill(a.ctx)
}

// openSource opens what makes keys: a child process, or in a build with the tag
// lab, which no release is, a source of pairs that cost nothing.
func (s *server) openSource() (keys.Source, error) {
	if lab, err := labSource(s.logger); lab != nil || err != nil {
		return lab, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.mill, err = keys.StartMill(keys.MillConfig{Command: []string{program, "mill"}, Stock: s.config.Keys.Stock, Logger: s.logger})
	return s.mill, err
}

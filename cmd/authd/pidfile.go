package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

func (s *server) writePID() error {
	path := s.config.PIDFile
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing pid_file: %w", err)
	}
	// By rename, so that a reader sees a whole number or nothing.
	next := path + ".new"
	text := []byte(strconv.Itoa(os.Getpid()) + "\n")
	if err := os.WriteFile(next, text, 0o644); err != nil {
		if overwrite(path, text) == nil {
			return os.Remove(next)
		}
		return fmt.Errorf("writing pid_file: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("writing pid_file: %w", err)
	}
	return nil
}

// overwrite writes a number over another without taking room, which a full disk has
// not: what the old one had more becomes white space.
func overwrite(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	room := max(int(info.Size()), len(text))
	_, err = f.WriteAt(append(text, bytes.Repeat([]byte{'\n'}, room-len(text))...), 0)
	return err
}

// removePID removes the file unless a successor has written its own.
func (s *server) removePID() error {
	if s.config.PIDFile == "" {
		return nil
	}
	if pid, err := readPID(s.config.PIDFile); err != nil || pid != os.Getpid() {
		return nil //nolint:nilerr // no file of ours: nothing to remove
	}
	return os.Remove(s.config.PIDFile)
}

// readPID reads what writePID wrote.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(text)))
}

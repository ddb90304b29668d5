package main

import (
	"fmt"
	"io"
	"log/slog"
)

// level is the configured level.
func (c logConfig) level() (slog.Level, error) {
	var level slog.Level
	if c.Level == "" {
		return level, nil
	}
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return 0, fmt.Errorf("log.level: %q is not debug, info, warn or error", c.Level)
	}
	return level, nil
}

// logger writes what an operator must know.
func (c logConfig) logger(w io.Writer) (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log.format: %q is not text or json", c.Format)
}

package main

import (
	"errors"
	"net/http"
	"reflect"
	"testing"

	"github.com/alecthomas/kong"
)

// A command that asks for a session it is not given fails whenever it is run.
func TestEveryCommandGetsWhatItRunsWith(t *testing.T) {
	parser, err := kong.New(&commands{}, kong.Name("authd"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, leaf := range parser.Model.Leaves(false) {
		run := leaf.Target.Addr().MethodByName("Run")
		if !run.IsValid() || run.Type().NumIn() != 1 {
			t.Errorf("%s: no Run with one parameter", leaf.FullPath())
			continue
		}
		found++
		client := false
		for at := leaf; at != nil; at = at.Parent {
			_, own := at.Target.Type().FieldByName("clientFlags")
			client = client || own
		}
		if session := run.Type().In(0) == reflect.TypeFor[*session](); session != client {
			t.Errorf("%s: runs with a %s, and has client flags: %t", leaf.FullPath(), run.Type().In(0), client)
		}
	}
	if found < 40 {
		t.Errorf("only %d commands found: the test looks for the wrong thing", found)
	}
}

// A token that goes over the wire in the clear is anybody's.
func TestAddressWithoutASchemeIsAskedInTheClearOnLoopbackAlone(t *testing.T) {
	for addr, scheme := range map[string]string{
		"127.0.0.1:8301": "http", "[::1]:8301": "http", "localhost:8301": "http", "127.0.0.1": "http",
		"192.0.2.11:8301": "https", "[2001:db8::1]:8301": "https", "node-1.example:8301": "https", "node-1.example": "https",
		"http://192.0.2.11:8301": "http", // who says so means it
	} {
		c, err := newClient(addr, "", "")
		if err != nil {
			t.Errorf("%s: %v", addr, err)
		} else if c.base.Scheme != scheme {
			t.Errorf("%s is asked as %s", addr, c.base)
		}
	}
}

// What passes by itself does not end an import of hours.
func TestImportIsSentAgainWhereThatHelps(t *testing.T) {
	for status, again := range map[int]bool{
		http.StatusServiceUnavailable: true, http.StatusTooManyRequests: true,
		http.StatusUnprocessableEntity: false, http.StatusUnauthorized: false,
	} {
		if transient(&problem{Status: status}) != again {
			t.Errorf("after %d: %t", status, !again)
		}
	}
	if transient(errors.New("no")) {
		t.Error("after anything")
	}
}

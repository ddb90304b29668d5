package main

import (
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

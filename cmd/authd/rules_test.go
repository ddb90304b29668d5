package main

import (
	"bytes"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The architecture as a test. ARCHITECTURE.md says why each wall is there; a new
// arrow starts with a sentence in it.

// module is the import path of the repository; root is where it lies from here.
const (
	module = "authd"
	root   = "../.."
)

// arrows are the packages of ours that a package may import, itself left out.
// Tests may import their own package and testing aids besides.
var arrows = map[string][]string{
	"zone":          {},
	"zone/probe":    {"zone"},
	"keys":          {},
	"keys/keystest": {"keys"},
	"cluster/state": {"zone", "keys"},
	"cluster":       {"cluster/state", "keys", "zone"},
	"api":           {"cluster", "cluster/state", "keys", "zone", "zone/probe"},
	"cmd/authd":     {"api", "cluster", "cluster/state", "keys", "zone", "zone/probe"},
}

// rooms are the packages that a foreign dependency, or a part of the standard
// library that means contact with the outside, may be imported by.
var rooms = []struct {
	imported string // a path, with everything below it
	by       []string
}{
	{"github.com/miekg/dns", []string{"zone", "zone/probe", "cmd/authd/chaos"}},
	{"github.com/emersion/go-msgauth", []string{"keys", "cmd/authd/chaos"}},
	{"github.com/hashicorp", []string{"cluster"}},
	{"go.etcd.io/bbolt", []string{"cluster"}},
	{"github.com/cespare/xxhash", []string{"cluster/state"}},
	{"github.com/fxamacker/cbor", []string{"cluster/state", "cluster"}},
	{"github.com/danielgtaylor/huma", []string{"api"}},
	{"github.com/prometheus", []string{"api"}},
	{"github.com/alecthomas/kong", []string{"cmd/authd"}},
	{"github.com/pelletier/go-toml", []string{"cmd/authd"}},
	{"net/http", []string{"api", "cmd/authd", "cmd/authd/chaos"}},
	{"golang.org/x/net/publicsuffix", []string{"api"}},
	{"math/rand", nil},
	{"math/rand/v2", []string{"zone/probe", "cmd/authd/chaos"}},
	{"os/exec", []string{"keys", "cmd/authd", "cmd/authd/chaos"}},
	{"github.com/anishathalye", []string{"cmd/authd/chaos"}},
}

// pure are the files that the replicated machine depends on: they must not meet
// clock, entropy, disk or network, or two nodes would differ. Files of zone and
// keys that the machine does not call are left out by name.
var pure = map[string][]string{
	"cluster/state": nil,
	"zone":          {"server.go", "ask.go", "server_*.go", "tcp*.go", "udp_*.go", "stats.go", "clock*.go", "cookie*.go"},
	"keys":          {"pair*.go", "pem.go", "weak.go", "seal*.go", "mill*.go", "selector.go", "lab*.go", "source*.go"},
}

// impure are the imports and calls that pure files must not have.
var (
	impureImports = []string{"os", "net", "crypto/rand", "math/rand", "math/rand/v2", "syscall", "golang.org/x/sys/unix", "log", "log/slog", "net/http", "time/tzdata", "runtime/debug"}
	impureCalls   = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.Tick", "time.NewTimer", "time.NewTicker"}
)

// vagueNames are packages that say nothing of what is in them.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib"}

// Guides, not limits: beyond them a function or file is named in the test's log,
// and a reader decides.
const (
	longFunction = 120
	longFile     = 700
)

// source is one Go file of the repository.
type source struct {
	pkg, name string // "cluster/state", "apply.go"
	test      bool
	text      []byte
	file      *ast.File
	fset      *token.FileSet
}

func (s *source) path() string { return path.Join(s.pkg, s.name) }

func (s *source) imports() []string {
	var all []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			panic(err) // the parser has read it
		}
		all = append(all, p)
	}
	return all
}

// sources parses every Go file of the repository.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if file != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "authd-dev") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		all = append(all, &source{
			pkg: filepath.ToSlash(dir), name: name, test: strings.HasSuffix(name, "_test.go"),
			text: text, file: parsed, fset: fset,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files found below %s: the test looks in the wrong place", len(all), root)
	}
	return all
}

func TestImportsKeepTheWalls(t *testing.T) {
	for _, s := range sources(t) {
		allowed, known := arrows[s.pkg]
		for _, imported := range s.imports() {
			ours, isOurs := strings.CutPrefix(imported, module+"/")
			switch {
			case isOurs && ours == "keys/keystest":
				if !s.test {
					t.Errorf("%s imports %s, which is for tests", s.path(), imported)
				}
			case isOurs && !known && !strings.HasPrefix(s.pkg, "bench"):
				t.Errorf("%s: package %s has no place in the architecture: add it to arrows, with a sentence in ARCHITECTURE.md", s.path(), s.pkg)
			case isOurs && known && ours != s.pkg && !slices.Contains(allowed, ours):
				t.Errorf("%s imports %s: there is no such arrow", s.path(), imported)
			}
			if !s.test && !strings.HasPrefix(s.pkg, "bench") {
				checkRoom(t, s, imported)
			}
		}
	}
}

// checkRoom holds the most specific room that names an import.
func checkRoom(t *testing.T, s *source, imported string) {
	t.Helper()
	best := -1
	for i, r := range rooms {
		if (imported == r.imported || strings.HasPrefix(imported, r.imported+"/")) &&
			(best < 0 || len(r.imported) > len(rooms[best].imported)) {
			best = i
		}
	}
	if best >= 0 && !slices.Contains(rooms[best].by, s.pkg) {
		t.Errorf("%s imports %s, which lives in %v alone", s.path(), imported, rooms[best].by)
	}
}

func TestTheMachineMeetsNoClockNoEntropyNoDisk(t *testing.T) {
	checked := map[string]int{}
	for _, s := range sources(t) {
		named, isPure := pure[s.pkg]
		if !isPure || s.test || matches(named, s.name) || labOnly(t, s) {
			continue
		}
		checked[s.pkg]++
		for _, imported := range s.imports() {
			if slices.Contains(impureImports, imported) {
				t.Errorf("%s imports %s: what needs the outside travels in the command", s.path(), imported)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Obj == nil && slices.Contains(impureCalls, x.Name+"."+sel.Sel.Name) {
					t.Errorf("%s uses %s.%s: time arrives as an argument", s.fset.Position(n.Pos()), x.Name, sel.Sel.Name)
				}
			}
			return true
		})
	}
	for pkg := range pure {
		if checked[pkg] == 0 {
			t.Errorf("no file of %s was checked", pkg)
		}
	}
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return err == nil && ok
	})
}

func TestNoInitAndNoVaguePackages(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(vagueNames, s.file.Name.Name) {
			t.Errorf("%s: package %s says nothing of what is in it", s.path(), s.file.Name.Name)
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function runs behind everybody's back: call it by name", s.fset.Position(f.Pos()))
			}
		}
		for _, i := range s.file.Imports {
			if i.Name != nil && i.Name.Name == "_" && !s.test && i.Path.Value != `"embed"` {
				t.Errorf("%s: blank import of %s registers something: call it by name", s.path(), i.Path.Value)
			}
		}
	}
}

// A lab key source derives keys from a seed: a build without the tag must not
// have it.
func TestLabFilesNeedTheirTag(t *testing.T) {
	found := false
	for _, s := range sources(t) {
		if s.test || !strings.HasPrefix(s.name, "lab") || s.name == "lab_off.go" {
			continue
		}
		found = true
		if !labOnly(t, s) {
			t.Errorf("%s: a lab file must begin with //go:build lab", s.path())
		}
	}
	if !found {
		t.Error("no lab file found: the test looks in the wrong place")
	}
}

// labOnly says whether a file is built with the tag lab alone.
func labOnly(t *testing.T, s *source) bool {
	t.Helper()
	for line := range bytes.Lines(s.text) {
		text := strings.TrimSpace(string(line))
		if !constraint.IsGoBuild(text) {
			continue
		}
		expr, err := constraint.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", s.path(), err)
		}
		with := expr.Eval(func(tag string) bool { return tag == "lab" })
		without := expr.Eval(func(string) bool { return false })
		return with && !without
	}
	return false
}

// Length is a guide: this says where a reader may want two rooms, and fails for
// nothing.
func TestLongFunctionsAndFilesAreNamed(t *testing.T) {
	for _, s := range sources(t) {
		if lines := bytes.Count(s.text, []byte("\n")); lines > longFile {
			t.Logf("%s has %d lines: would a reader thank you for two rooms?", s.path(), lines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line; lines > longFunction {
				t.Logf("%s: %s has %d lines", s.fset.Position(f.Pos()), f.Name.Name, lines)
			}
		}
	}
}

// TestPackageDocumentsNameFilesThatExist keeps the maps in the package comments true
// ("Where things are").
func TestPackageDocumentsNameFilesThatExist(t *testing.T) {
	named := regexp.MustCompile(`[a-z0-9_*]+\.go\b`)
	maps := 0
	for _, s := range sources(t) {
		_, where, mapped := strings.Cut(s.file.Doc.Text(), "# Where things are")
		if !mapped {
			continue
		}
		maps++
		for _, pattern := range named.FindAllString(where, -1) {
			found, err := filepath.Glob(filepath.Join(root, s.pkg, pattern))
			if err != nil || len(found) == 0 {
				t.Errorf("%s names %s, and there is none: say where that is now", s.path(), pattern)
			}
		}
	}
	if maps < 6 {
		t.Errorf("%d packages have a map, of zone, keys, cluster, cluster/state, api and cmd/authd", maps)
	}
}

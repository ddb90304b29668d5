package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// goodConfig writes a directory with a good configuration, changed by edits
// (old, new, …), and returns the path of its file.
func goodConfig(t *testing.T, edits ...string) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := openAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.issue(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), "node-1", nil); err != nil {
		t.Fatal(err)
	}
	if err := secretFile(filepath.Join(dir, "kek"), []byte("not looked at")); err != nil {
		t.Fatal(err)
	}
	text := string(nodeFile{
		Note: "A test.", ID: "node-1", DataDir: "data",
		DNS: []string{"127.0.0.1:5301"}, API: []string{"127.0.0.1:8301"}, Link: "127.0.0.1:7301",
		LinkCA: "ca.pem", LinkCert: "cert.pem", LinkKey: "key.pem", KEK: "kek",
		Members:   []memberConfig{{ID: "node-1", Address: "127.0.0.1:7301"}},
		ClusterID: "0123456789abcdef", AdminTokenHash: tokenHash("authd_test"),
	}.text())
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("the configuration has no %q:\n%s", edits[i], text)
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	file := filepath.Join(dir, "node.toml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfigPathsAreRelativeToItsFile(t *testing.T) {
	file := goodConfig(t)
	c, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	if want := filepath.Join(dir, "data"); c.DataDir != want {
		t.Errorf("data_dir is %s, not %s", c.DataDir, want)
	}
	if want := filepath.Join(dir, "kek"); c.Keys.KEKFile != want {
		t.Errorf("kek_file is %s, not %s", c.Keys.KEKFile, want)
	}
	if c.PIDFile != "" {
		t.Errorf("pid_file is %s, and was not set", c.PIDFile)
	}
}

func TestConfigRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		edits []string
		want  string // FILE stands for the file's path
	}{
		"unknown key":           {[]string{"[dns]\n", "[dns]\nlistne = []\n"}, `FILE:9:1: unknown key "dns.listne"`},
		"unknown table":         {[]string{"[dns]\n", "[dsn]\nworkers = 1\n[dns]\n"}, `FILE:8:2: unknown key "dsn"`},
		"syntax":                {[]string{"[dns]\n", "[dns\n"}, "FILE:8:5: "},
		"wrong type":            {[]string{"[dns]\n", "[dns]\nworkers = \"two\"\n"}, `FILE:9:11: dns.workers: cannot be a string, in: workers = "two"`},
		"no list":               {[]string{`["127.0.0.1:5301"]`, `"127.0.0.1:5301"`}, `dns.listen: cannot be a string, in: listen = "127.0.0.1:5301"`},
		"not an address":        {[]string{`"127.0.0.1:5301"`, `"localhost:domain"`}, `FILE:9:11: dns.listen: invalid port "domain" parsing "localhost:domain", in: listen = ["localhost:domain"]`},
		"not a duration":        {[]string{"[dns]\n", "[dns]\ncatch_up = \"soon\"\n"}, "FILE:9:12: dns.catch_up"},
		"not a size":            {[]string{"[dns]\n", "[runtime]\nmemory_limit = \"3GB\"\n[dns]\n"}, "FILE:9:16: runtime.memory_limit"},
		"missing key":           {[]string{`id       = "node-1"`, ""}, "id: missing"},
		"missing list":          {[]string{`listen = ["127.0.0.1:5301"]`, ""}, "dns.listen: missing"},
		"bad id":                {[]string{`id       = "node-1"`, `id = "Node 1"`}, `id: "Node 1" may only have`},
		"plain HTTP off loop":   {[]string{`"127.0.0.1:8301"`, `"0.0.0.0:8301"`}, "api.listen[0]: 0.0.0.0:8301 is not loopback"},
		"half a pair":           {[]string{"[api]\n", "[api]\ncert_file = \"cert.pem\"\n"}, "api.cert_file and api.key_file: give both"},
		"not among members":     {[]string{`{ id = "node-1"`, `{ id = "node-9"`}, `bootstrap.members: this node, "node-1", is not among them`},
		"bad token hash":        {[]string{tokenHash("authd_test"), "abc"}, "bootstrap.admin_token_hash: not the 64 hex digits"},
		"no cluster id":         {[]string{`"0123456789abcdef"`, `""`}, "bootstrap.cluster_id: missing"},
		"unproven in public":    {[]string{`"127.0.0.1:5301"`, `"192.0.2.1:53"`, "[bootstrap]\n", "[bootstrap]\nverification_off = true\n"}, "bootstrap.verification_off: not with 192.0.2.1:53"},
		"link without port":     {[]string{`listen    = "127.0.0.1:7301"`, `listen = "127.0.0.1"`}, "link.listen: "},
		"too much stock":        {[]string{"[keys]\n", "[keys]\nstock = 501\n"}, "keys.stock: 501 is not between 0 and 500"},
		"too many workers":      {[]string{"[dns]\n", "[dns]\nworkers = 257\n"}, "dns.workers: 257 is not between 0 and 256"},
		"negative rate":         {[]string{"[dns]\n", "[dns.rate_limit]\nno_names = -1\n[dns]\n"}, "dns.rate_limit.no_names: -1 is not between 0 and"},
		"bits behind a prefix":  {[]string{"[dns]\n", "[dns.rate_limit]\nexempt = [\"192.0.2.1/24\"]\n[dns]\n"}, "dns.rate_limit.exempt[0]: 192.0.2.1/24 is not a prefix without bits behind its length: 192.0.2.0/24 is"},
		"unknown log level":     {[]string{"[dns]\n", "[log]\nlevel = \"loud\"\n[dns]\n"}, `log.level: "loud" is not`},
		"unknown log format":    {[]string{"[dns]\n", "[log]\nformat = \"xml\"\n[dns]\n"}, `log.format: "xml" is not`},
		"secret is not there":   {[]string{`"kek"`, `"kek2"`}, "keys.kek_file: "},
		"negative catch-up":     {[]string{"[dns]\n", "[dns]\ncatch_up = \"-1s\"\n"}, "dns.catch_up: -1s is negative"},
		"negative timeout":      {[]string{"[dns]\n", "[verify]\ntimeout = \"-1s\"\n[dns]\n"}, "verify.timeout: -1s is negative"},
		"member twice":          {[]string{`{ id = "node-1"`, `{ id = "node-1", address = "127.0.0.1:7309" }, { id = "node-1"`}, `bootstrap.members[1].id: "node-1" is there twice`},
		"half a token hash":     {[]string{tokenHash("authd_test"), tokenHash("authd_test")[:32]}, "bootstrap.admin_token_hash: not the 64 hex digits"},
		"id that ends in a -":   {[]string{`id       = "node-1"`, `id = "node-"`}, `id: "node-" may only have`},
		"long id":               {[]string{`id       = "node-1"`, `id = "` + strings.Repeat("n", 64) + `"`}, "must have 1 to 63 characters"},
		"negative garbage rate": {[]string{"[dns]\n", "[runtime]\ngc_percent = -1\n[dns]\n"}, "runtime.gc_percent: -1 is negative"},
	} {
		t.Run(name, func(t *testing.T) {
			file := goodConfig(t, c.edits...)
			_, err := loadConfig(file)
			if err == nil {
				t.Fatal("the file was taken")
			}
			if want := strings.ReplaceAll(c.want, "FILE", file); !strings.Contains(err.Error(), want) {
				t.Errorf("error\n  %v\nhas no\n  %s", err, want)
			}
		})
	}
}

func TestConfigMayBeginWithAByteOrderMark(t *testing.T) {
	if _, err := loadConfig(goodConfig(t, "# A test.", "\ufeff# A test.")); err != nil {
		t.Error(err)
	}
}

func TestConfigRefusesSecretsThatOthersMayRead(t *testing.T) {
	for _, name := range []string{"kek", "key.pem"} {
		file := goodConfig(t)
		secret := filepath.Join(filepath.Dir(file), name)
		if err := os.Chmod(secret, 0o640); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfig(file)
		if err == nil || !strings.Contains(err.Error(), "mode 0640") || !strings.Contains(err.Error(), "chmod 600 "+secret) {
			t.Errorf("%s with mode 0640: %v", name, err)
		}
	}
}

// deploy/authd.toml is the documentation of the file: it must have every key,
// and every key it has must exist.
func TestExampleConfigHasEveryKey(t *testing.T) {
	const example = "../../deploy/authd.toml"
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(example, text)
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(c.DNS.CatchUp) != defaultCatchUp {
		t.Errorf("the example's dns.catch_up is %s, the default %s", time.Duration(c.DNS.CatchUp), defaultCatchUp)
	}
	var walk func(kind reflect.Type, table string) // "" or "dns."
	walk = func(kind reflect.Type, table string) {
		for i := range kind.NumField() {
			f := kind.Field(i)
			key := f.Tag.Get("toml")
			switch {
			case key == "":
				t.Errorf("field %s of %s has no key", f.Name, kind.Name())
			case f.Type.Kind() == reflect.Struct:
				if !strings.Contains(string(text), "\n["+table+key+"]\n") {
					t.Errorf("%s has no table [%s%s]", example, table, key)
				}
				walk(f.Type, table+key+".")
			case !strings.Contains(string(text), "\n"+key+" = "):
				t.Errorf("%s has no key %s%s", example, table, key)
			}
		}
	}
	walk(reflect.TypeFor[nodeConfig](), "")
}

func TestNobodyIsExemptWhereTheListIsEmpty(t *testing.T) {
	for text, want := range map[string]bool{"": true, "[dns.rate_limit]\nexempt = []\n": false} {
		c, err := parseConfig("node.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.DNS.RateLimit.Exempt == nil; got != want {
			t.Errorf("%q: loopback exempt %t, want %t", text, got, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("id = \"node-1\"\n[dns]\nlisten = [\"127.0.0.1:53\"]\n"))
	f.Add([]byte("[dns]\nlistne = 1\n"))
	f.Add([]byte("[dns\n"))
	f.Add([]byte("[runtime]\nmemory_limit = \"3GiB\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("node.toml", text)
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v with error %v", c, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "node.toml:") {
			t.Fatalf("an error without the file: %v", err)
		}
	})
}

func TestByteSizes(t *testing.T) {
	for text, want := range map[string]byteSize{"": 0, "17B": 17, "2KiB": 2048, "512MiB": 512 << 20, "3GiB": 3 << 30} {
		var s byteSize
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d (%v), not %d", text, s, err, want)
		}
	}
	for _, text := range []string{"3", "3GB", "-1B", "9999999999GiB", "GiB", "1.5GiB"} {
		var s byteSize
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %d", text, s)
		}
	}
}

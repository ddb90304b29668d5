package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/template"
)

// nodeFile is what authd writes of a node's configuration.
type nodeFile struct {
	ID, DataDir, PIDFile            string
	DNS, API                        []string
	APICert, APIKey                 string
	Link, Advertise                 string
	LinkCA, LinkCert, LinkKey       string
	KEK                             string
	Stock                           int
	Members                         []memberConfig // empty: added later
	ClusterID, AdminTokenHash, Note string
	Authority                       string
	VerificationOff                 bool
}

// text is the file. Its comments say what an operator may want to change.
func (f nodeFile) text() []byte {
	quote := func(s string) string { return strconv.Quote(s) }
	list := func(items []string) string {
		quoted := make([]string, len(items))
		for i, s := range items {
			quoted[i] = quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	t := template.Must(template.New("node").Funcs(template.FuncMap{"q": quote, "list": list}).Parse(nodeTemplate))
	var b bytes.Buffer
	if err := t.Execute(&b, f); err != nil {
		panic(err) // the template above is wrong
	}
	return b.Bytes()
}

const nodeTemplate = `# {{.Note}}
# What this machine decides alone. Relative paths are relative to this file; an
# unknown key is an error. deploy/authd.toml documents every key.

id       = {{q .ID}}
data_dir = {{q .DataDir}}
{{- if .PIDFile}}
pid_file = {{q .PIDFile}}
{{- end}}

[dns]
listen = {{list .DNS}}

[api]
listen    = {{list .API}}
{{- if .APICert}}
cert_file = {{q .APICert}}
key_file  = {{q .APIKey}}
{{- end}}

[link]
listen    = {{q .Link}}
{{- if .Advertise}}
advertise = {{q .Advertise}}
{{- end}}
ca_file   = {{q .LinkCA}}
cert_file = {{q .LinkCert}}
key_file  = {{q .LinkKey}}

[keys]
kek_file = {{q .KEK}}
{{- if .Stock}}
stock    = {{.Stock}}
{{- end}}
{{- if .Members}}

# Used once, to found the cluster; not read afterwards.
[bootstrap]
cluster_id       = {{q .ClusterID}}
admin_token_hash = {{q .AdminTokenHash}}
{{- if .Authority}}
authority_file   = {{q .Authority}}
{{- end}}
{{- if .VerificationOff}}
verification_off = true # delegated domains count as proven: for authd dev only
{{- end}}
members = [
{{- range .Members}}
  { id = {{q .ID}}, address = {{q .Address}} },
{{- end}}
]
{{- end}}
`

// secretFile writes a new file that only its owner may read. It never
// overwrites: an existing file is fs.ErrExist.
func secretFile(path string, content []byte) error {
	return newFile(path, content, 0o600)
}

// newFile writes a file that must not exist yet, and syncs it.
func newFile(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

//go:build lab

package main

import (
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// configure writes the peers' configurations, all with the same zones, the same
// number of workers (which bench/run fills in), minimal responses where that is not the default, no rate
// limiting and no query log. bench/run knows the ports.
func (w *world) configure() error {
	zones := make([]string, w.delegated)
	for i := range zones {
		zones[i] = zoneOf(i)
	}
	values := struct {
		Dir, Apex string
		Zones     []string
		Workers   string
	}{w.dir, apex, zones, "@WORKERS@"}
	for _, dir := range []string{"template", "run/knot", "run/nsd", "run/bind", "run/pdns"} {
		if err := os.MkdirAll(filepath.Join(w.dir, filepath.FromSlash(dir)), 0o755); err != nil {
			return err
		}
	}
	for file, text := range configurations {
		var b strings.Builder
		if err := template.Must(template.New(file).Parse(text)).Execute(&b, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(w.dir, "template", file), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

var configurations = map[string]string{
	"knot.conf": `server:
  listen: 127.0.0.1@5501
  rundir: {{.Dir}}/run/knot
  udp-workers: {{.Workers}}
  tcp-workers: {{.Workers}}
  background-workers: 1
log:
  - target: stderr
    any: error
database:
  storage: {{.Dir}}/run/knot
template:
  - id: default
    storage: {{.Dir}}/zones/d
    file: "%s.zone"
    semantic-checks: off
zone:
  - domain: {{.Apex}}
    file: {{.Dir}}/zones/{{.Apex}}.zone
{{- range .Zones}}
  - domain: {{.}}
{{- end}}
`,
	"nsd.conf": `server:
  ip-address: 127.0.0.1@5502
  server-count: {{.Workers}}
  reuseport: yes
  tcp-count: 200
  username: ""
  chroot: ""
  database: ""
  zonesdir: "{{.Dir}}/zones"
  pidfile: "{{.Dir}}/run/nsd/nsd.pid"
  xfrdfile: "{{.Dir}}/run/nsd/xfrd.state"
  zonelistfile: "{{.Dir}}/run/nsd/zone.list"
  logfile: "{{.Dir}}/run/nsd/log"
  minimal-responses: yes
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: yes
  control-interface: {{.Dir}}/run/nsd/ctl
pattern:
  name: deleg
  zonefile: "d/%s.zone"
zone:
  name: {{.Apex}}
  zonefile: {{.Apex}}.zone
{{- range .Zones}}
zone:
  name: {{.}}
  include-pattern: deleg
{{- end}}
`,
	"bind.conf": `options {
  directory "{{.Dir}}/run/bind";
  listen-on port 5503 { 127.0.0.1; };
  listen-on-v6 { none; };
  pid-file "{{.Dir}}/run/bind/pid";
  session-keyfile "{{.Dir}}/run/bind/session.key";
  recursion no;
  minimal-responses yes;
  notify no;
  dnssec-validation no;
};
controls { };
logging { category default { default_stderr; }; };
zone "{{.Apex}}" { type primary; file "{{.Dir}}/zones/{{.Apex}}.zone"; };
{{- $dir := .Dir}}{{range .Zones}}
zone "{{.}}" { type primary; file "{{$dir}}/zones/d/{{.}}.zone"; };
{{- end}}
`,
	"pdns-zones.conf": `zone "{{.Apex}}" { type master; file "{{.Dir}}/zones/{{.Apex}}.zone"; };
{{- $dir := .Dir}}{{range .Zones}}
zone "{{.}}" { type master; file "{{$dir}}/zones/d/{{.}}.zone"; };
{{- end}}
`,
	"pdns.conf": `launch=bind
bind-config={{.Dir}}/conf/pdns-zones.conf
local-address=127.0.0.1
local-port=5504
socket-dir={{.Dir}}/run/pdns
daemon=no
guardian=no
loglevel=3
receiver-threads={{.Workers}}
reuseport=yes
security-poll-suffix=
`,
	"Corefile": `{{.Apex}}:5505 {
  bind 127.0.0.1
  multisocket {{.Workers}}
  minimal
  file {{.Dir}}/zones/{{.Apex}}.zone
}
test:5505 {
  bind 127.0.0.1
  multisocket {{.Workers}}
  minimal
  auto {
    directory {{.Dir}}/zones/d (.*)\.zone {1}
    reload 0
  }
}
`,
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	bindPort = 5531
	pdnsPort = 5532
	pdnsAPI  = 8532
	knotPort = 5533
)

// zoneHead is a zone as small as it may be.
const zoneHead = `$TTL 3600
@ SOA ns1.platform.test. hostmaster.platform.test. 1 7200 1800 1209600 300
@ NS ns1.platform.test.
`

// longText is TXT data as long as a DKIM key, with a mark at its end.
func longText(mark string) string {
	return fmt.Sprintf("%q %q", strings.Repeat("k", 255), strings.Repeat("k", 139)+"."+mark)
}

func served(port int, name string) error {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeSOA)
	c := dns.Client{Timeout: time.Second}
	r, _, err := c.Exchange(q, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	if len(r.Answer) == 0 {
		return fmt.Errorf("%s: %s", name, dns.RcodeToString[r.Rcode])
	}
	return nil
}

// bind measures dynamic updates (RFC 2136) of a zone with as many names as the
// import has customers.
func (b *bench) bind() error {
	dir, err := b.folder("bind")
	if err != nil {
		return err
	}
	var zone strings.Builder
	zone.WriteString(zoneHead + "ns1 A 192.0.2.53\n")
	for i := range b.imports {
		fmt.Fprintf(&zone, "k%d TXT %s\n", i, longText("old"))
	}
	conf := fmt.Sprintf(`options { directory %[1]q; listen-on port %[2]d { 127.0.0.1; }; listen-on-v6 { none; };
  pid-file "%[1]s/pid"; session-keyfile "%[1]s/session.key"; recursion no; notify no; dnssec-validation no; };
controls { };
logging { category default { null; }; };
zone "platform.test" { type primary; file "%[1]s/zone"; allow-update { 127.0.0.1; }; };
`, dir, bindPort)
	if err := writeAll(dir, map[string]string{"zone": zone.String(), "conf": conf}); err != nil {
		return err
	}
	p, err := start(filepath.Join(b.dir, "bind.log"), "named", "-f", "-c", filepath.Join(dir, "conf"))
	if err != nil {
		return err
	}
	defer p.stop()
	if err := until("named answers", time.Minute, func() error { return served(bindPort, "platform.test.") }); err != nil {
		return err
	}
	for _, clients := range []int{1, 8, 64} {
		conns := make([]*dns.Conn, clients)
		for i := range conns {
			if conns[i], err = dns.Dial("udp", fmt.Sprintf("127.0.0.1:%d", bindPort)); err != nil {
				return err
			}
			defer conns[i].Close()
		}
		if err := b.drive("bind update", clients, func(client int, n uint64) error {
			return update(conns[client], fmt.Sprintf("k%d.platform.test.", n*7919%uint64(b.imports)), fmt.Sprint(n))
		}); err != nil {
			return err
		}
	}
	return nil
}

// update replaces a TXT RRset, as nsupdate does.
func update(conn *dns.Conn, name, mark string) error {
	rr, err := dns.NewRR(name + " 3600 IN TXT " + longText(mark))
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate("platform.test.")
	m.RemoveRRset([]dns.RR{rr})
	m.Insert([]dns.RR{rr})
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.WriteMsg(m); err != nil {
		return err
	}
	r, err := conn.ReadMsg()
	if err != nil {
		return err
	}
	if r.Id != m.Id || r.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("update: %s", dns.RcodeToString[r.Rcode])
	}
	return nil
}

// pdns measures zones added over PowerDNS's API, kept in LMDB, without rectifying.
func (b *bench) pdns() error {
	dir, err := b.folder("pdns")
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`launch=lmdb
lmdb-filename=%[1]s/db
local-address=127.0.0.1
local-port=%[2]d
socket-dir=%[1]s
api=yes
api-key=k
webserver=yes
webserver-port=%[3]d
webserver-loglevel=none
default-api-rectify=no
`, dir, pdnsPort, pdnsAPI)
	if err := writeAll(dir, map[string]string{"pdns.conf": conf}); err != nil {
		return err
	}
	p, err := start(filepath.Join(b.dir, "pdns.log"), "pdns_server", "--config-dir="+dir)
	if err != nil {
		return err
	}
	defer p.stop()
	c := newClient(fmt.Sprintf("http://127.0.0.1:%d", pdnsAPI), 64, http.Header{"X-Api-Key": {"k"}})
	add := func(zone string) error { return c.call("POST", "/api/v1/servers/localhost/zones", pdnsZone(zone), nil) }
	if err := until("pdns takes a zone", time.Minute, func() error { return add("first.example.") }); err != nil {
		return err
	}
	return b.drive("pdns domain", 64, func(_ int, n uint64) error { return add(fmt.Sprintf("send.added%d.example.", n)) })
}

// pdnsZone is what a delegated customer of authd has, as a zone for the API.
func pdnsZone(zone string) map[string]any {
	set := func(name, typ string, values ...string) map[string]any {
		records := []map[string]any{}
		for _, v := range values {
			records = append(records, map[string]any{"content": v, "disabled": false})
		}
		return map[string]any{"name": name, "type": typ, "ttl": 3600, "changetype": "REPLACE", "records": records}
	}
	const spf, mx = `"v=spf1 ip4:192.0.2.0/24 ~all"`, "10 mx1.platform.test."
	return map[string]any{"name": zone, "kind": "Native", "nameservers": []string{}, "rrsets": []any{
		set(zone, "SOA", "ns1.platform.test. hostmaster.platform.test. 1 7200 1800 1209600 300"),
		set(zone, "NS", "ns1.platform.test.", "ns2.platform.test."),
		set(zone, "MX", mx), set(zone, "TXT", spf),
		set("bounce."+zone, "MX", mx), set("bounce."+zone, "TXT", spf),
		set("s1._domainkey."+zone, "TXT", longText("1")), set("s2._domainkey."+zone, "TXT", longText("2")),
		set("click."+zone, "A", "192.0.2.80"),
	}}
}

// knot measures zones added in transactions of its configuration, until the last
// of all answers. Files of zones are written before the clock starts.
func (b *bench) knot() error {
	for _, batch := range []int{100, 1000} {
		if err := b.knotBatches(batch); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) knotBatches(batch int) error {
	dir, err := b.folder(fmt.Sprintf("knot-%d", batch))
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`server:
  listen: 127.0.0.1@%[2]d
  rundir: %[1]s
log:
  - target: stderr
    any: error
database:
  storage: %[1]s
template:
  - id: default
    storage: %[1]s
    file: "%%s.zone"
    semantic-checks: off
    zonefile-sync: -1
`, dir, knotPort)
	zone := zoneHead + "@ NS ns2.platform.test.\n@ MX 10 mx1.platform.test.\n@ TXT \"v=spf1 ip4:192.0.2.0/24 ~all\"\n" +
		"bounce MX 10 mx1.platform.test.\nbounce TXT \"v=spf1 ip4:192.0.2.0/24 ~all\"\n" +
		"s1._domainkey TXT " + longText("1") + "\ns2._domainkey TXT " + longText("2") + "\nclick A 192.0.2.80\n"
	files := map[string]string{"knot.conf": conf}
	names := make([]string, b.imports)
	for i := range names {
		names[i] = fmt.Sprintf("send.customer%d.example", i)
		files[names[i]+".zone"] = zone
	}
	if err := writeAll(dir, files); err != nil {
		return err
	}
	db := filepath.Join(dir, "confdb")
	if out, err := exec.Command("knotc", "-C", db, "conf-import", filepath.Join(dir, "knot.conf")).CombinedOutput(); err != nil {
		return fmt.Errorf("conf-import: %w: %s", err, out)
	}
	p, err := start(filepath.Join(b.dir, "knot.log"), "knotd", "-C", db)
	if err != nil {
		return err
	}
	defer p.stop()
	control := &knotControl{path: filepath.Join(dir, "knot.sock")}
	if err := until("knotd takes commands", time.Minute, func() error { return control.do("status") }); err != nil {
		return err
	}
	spent, began := processors(), time.Now()
	for from := 0; from < len(names); from += batch {
		if err := control.add(names[from:min(from+batch, len(names))]); err != nil {
			return err
		}
	}
	last := names[len(names)-1] + "."
	if err := until("knot answers "+last, 2*time.Minute, func() error { return served(knotPort, last) }); err != nil {
		return err
	}
	rate := float64(len(names)) / time.Since(began).Seconds()
	row := fmt.Sprintf("knot batches of %d", batch)
	b.rates[row] = rate
	fmt.Printf("| %s, %d zones | 1 | %.0f | | | %.0f | 0 |\n", row, len(names), rate, each(processors()-spent, len(names)))
	return nil
}

// knotControl speaks the protocol of knotc over one connection a command.
type knotControl struct{ path string }

// Units of the protocol, and which data a unit of data has.
const (
	knotEnd, knotData, knotBlock          = 0, 1, 3
	knotOffset                            = 16
	knotCmd, knotError                    = 0, 2
	knotSection, knotItem, knotValue byte = 3, 4, 10
)

func (k *knotControl) add(zones []string) error {
	if err := k.do("conf-begin"); err != nil {
		return err
	}
	for _, z := range zones {
		if err := k.do("conf-set", [2]string{string(rune(knotSection)), "zone"}, [2]string{string(rune(knotItem)), "domain"}, [2]string{string(rune(knotValue)), z}); err != nil {
			return err
		}
	}
	return k.do("conf-commit")
}

// do sends a command with its data and waits for the end of the reply.
func (k *knotControl) do(command string, data ...[2]string) error {
	conn, err := net.Dial("unix", k.path)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	message := []byte{knotData}
	add := func(index byte, value string) {
		message = append(message, knotOffset+index, byte(len(value)>>8), byte(len(value)))
		message = append(message, value...)
	}
	add(knotCmd, command)
	for _, d := range data {
		add(d[0][0], d[1])
	}
	message = append(message, knotBlock)
	if _, err := conn.Write(message); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	var refused string
	for {
		unit, err := r.ReadByte()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case unit == knotBlock:
			_, _ = conn.Write([]byte{knotEnd})
			if refused != "" {
				return fmt.Errorf("%s: %s", command, refused)
			}
			return nil
		case unit >= knotOffset:
			var size [2]byte
			if _, err := io.ReadFull(r, size[:]); err != nil {
				return err
			}
			value := make([]byte, int(size[0])<<8|int(size[1]))
			if _, err := io.ReadFull(r, value); err != nil {
				return err
			}
			if unit == knotOffset+knotError {
				refused = string(value)
			}
		}
	}
}

func writeAll(dir string, files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

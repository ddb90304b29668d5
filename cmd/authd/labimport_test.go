package main_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// customersFile has a thousand customers in both modes, with the variety that
// real ones have.
const customersFile = "../../testdata/customers.csv"

// digSample is how many of the answers are asked for with dig as well.
const digSample = 200

// served is the reply of GET …/served.
type served struct {
	Records []struct {
		Name   string   `json:"name"`
		Type   string   `json:"type"`
		TTL    uint32   `json:"ttl"`
		Values []string `json:"values"`
	} `json:"records"`
}

// answers are what the API of a node says is served at a path.
func (c *cluster) answers(node int, path string) (all []answer) {
	c.Helper()
	var s served
	c.call(node, "GET", path, nil, &s)
	for _, r := range s.Records {
		a, err := newAnswer(r.Name, r.Type, r.TTL, r.Values)
		if err != nil {
			c.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// expected is everything the cluster must answer, as a node's API says: the
// platform zones and every claim.
func (c *cluster) expected(node int) (all []answer, domains int) {
	c.Helper()
	for _, raw := range c.items(node, "/v1/zones") {
		var z struct {
			Zone string `json:"zone"`
		}
		c.decode(raw, &z)
		all = append(all, c.answers(node, "/v1/zones/"+z.Zone+"/served")...)
	}
	for _, raw := range c.items(node, "/v1/domains") {
		var d domainReply
		c.decode(raw, &d)
		own := c.answers(node, "/v1/domains/"+d.Token+"/served")
		if len(own) < 3 {
			c.Fatalf("%s (%s): only %d RRsets are served", d.Domain, d.State, len(own))
		}
		all = append(all, own...)
		domains++
	}
	return all, domains
}

// mustAgree asks nodes for all that one of them says is served, and fails the
// test where an answer differs. The rotator goes on meanwhile (a standby that is
// published moves serials), so it begins again where the index has moved.
func (c *cluster) mustAgree(when string, nodes ...int) (all []answer, domains int) {
	c.Helper()
	var servers []string
	for _, i := range nodes {
		servers = append(servers, c.dns(i))
	}
	c.eventually(2*time.Minute, when, func() error {
		c.caughtUp(nodes...)
		before := c.index(nodes[0])
		all, domains = c.expected(nodes[0])
		asked, wrong := askAll(all, servers...)
		if wrong == nil {
			c.Logf("%s: %d answers right at %d nodes over UDP and TCP", when, asked, len(nodes))
			return nil
		}
		err := fmt.Errorf("%d of %d answers are wrong, among them:\n%s", len(wrong), asked, strings.Join(wrong[:min(len(wrong), 5)], "\n"))
		if c.index(nodes[0]) == before {
			err = fmt.Errorf("%w: %w", errStop, err)
		}
		return err
	})
	return all, domains
}

// index is how far a node is.
func (c *cluster) index(node int) string {
	c.Helper()
	return c.call(node, "GET", "/v1/cluster", nil, nil).header.Get("X-Authd-Index")
}

// items is every item of a list.
func (c *cluster) items(node int, path string) (items []json.RawMessage) {
	c.Helper()
	for cursor := ""; ; {
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next"`
		}
		c.call(node, "GET", path+"?limit=500&cursor="+url.QueryEscape(cursor), nil, &page)
		items = append(items, page.Items...)
		if cursor = page.Next; cursor == "" {
			return items
		}
	}
}

func (c *cluster) decode(raw []byte, into any) {
	c.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		c.Fatalf("%v in %s", err, raw)
	}
}

// customersIn reads the pools and domains of an import file.
func customersIn(l *lab, file string) (pools []string, domains map[string]bool) {
	l.Helper()
	f, err := os.Open(file)
	if err != nil {
		l.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		l.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	seen := map[string]bool{}
	domains = map[string]bool{}
	for _, r := range rows[1:] {
		if pool := r[column["pool"]]; !seen[pool] {
			seen[pool] = true
			pools = append(pools, pool)
		}
		domains[r[column["domain"]]] = true
	}
	return pools, domains
}

// importable starts a cluster that has the pools of the customers' file.
func (l *lab) importable() (c *cluster, domains int) {
	l.Helper()
	// Keys of the lab source: distinct and of real size, but they cost nothing.
	c = l.startDev(l.build("lab"))
	pools, names := customersIn(l, customersFile)
	c.platform(pools...)
	return c, len(names)
}

// TestImportThousandCustomersRightOnEveryNode imports and then asks every node
// for every record: at once, after a restart of all nodes, and on one node alone
// after all were killed.
func TestImportThousandCustomersRightOnEveryNode(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	c, domains := l.importable()
	if out, err := c.cli(2, "domain", "import", customersFile); err != nil {
		l.Fatalf("importing: %v\n%s", err, out)
	}
	all, imported := c.mustAgree("after the import", 1, 2, 3)
	if imported != domains {
		l.Fatalf("%d domains were imported, not %d", imported, domains)
	}
	c.digSample(all)

	if out, err := c.cli(3, "domain", "import", customersFile); err != nil {
		l.Fatalf("importing again: %v\n%s", err, out)
	}
	again, _ := c.expected(3)
	mustEqual(l, "after a second import, which changes nothing", again, all)

	c.restartAll()
	if all, _ = c.mustAgree("after a restart of all nodes", 1, 2, 3); len(all) != len(again) {
		l.Fatalf("%d RRsets after a restart, not %d", len(all), len(again))
	}

	// Serials left out: the rotator may move one between the last look and the kill.
	last := append(withoutSOA(all), c.lastWrites()...)
	c.killAll(1, 2, 3)
	c.serve(3)
	l.mustAnswer("on one node alone, after all were killed", last, c.dns(3))
	c.serve(1)
	c.serve(2)
	c.mustAgree("with all of them back", 1, 2, 3)
}

// restartAll stops every node with SIGTERM and starts the cluster again from the
// same directory.
func (c *cluster) restartAll() {
	c.Helper()
	c.dev.end(syscall.SIGTERM)
	if c.dev.err != nil {
		c.Fatalf("authd dev did not stop cleanly: %v\n%s", c.dev.err, tail(c.dev.log, 20))
	}
	*c = *c.startDev(c.binary)
	c.leader(1, 2, 3)
}

// lastWrites makes further writes, each confirmed by every node, and gives what
// must be answered because of them. Nothing is waited for after the last.
func (c *cluster) lastWrites() (all []answer) {
	c.Helper()
	const writes = 20
	for i := range writes {
		d := c.add(fmt.Sprintf("last%d.customer.test", i), "delegated")
		all = append(all, withoutSOA(c.answers(1, "/v1/domains/"+d.Token+"/served"))...)
		r := c.call(1+i%labNodes, "PUT", "/v1/domains/"+d.Token+"/records/note/TXT?wait=served",
			map[string]any{"ttl": 300, "values": []string{fmt.Sprintf("write %d", i)}}, nil)
		if r.header.Get("X-Authd-Index") == "" {
			c.Fatal("the reply to a write carries no X-Authd-Index")
		}
		note, err := newAnswer("note."+d.Domain, "TXT", 300, []string{fmt.Sprintf("\"write %d\"", i)})
		if err != nil {
			c.Fatal(err)
		}
		all = append(all, note)
	}
	return all
}

// withoutSOA leaves out the RRsets that hold a serial.
func withoutSOA(all []answer) []answer {
	return slices.DeleteFunc(slices.Clone(all), func(a answer) bool { return a.qtype == dns.TypeSOA })
}

// digSample asks with dig for a sample of the answers, spread over the nodes.
func (c *cluster) digSample(all []answer) {
	c.Helper()
	random := rand.New(rand.NewPCG(1, 2)) // the same sample in every run
	for i, at := range random.Perm(len(all))[:min(digSample, len(all))] {
		c.dig(c.dns(1+i%labNodes), all[at])
	}
	c.Logf("dig agrees on a sample of %d", min(digSample, len(all)))
}

// mustEqual compares two sets of answers in any order.
func mustEqual(l *lab, when string, got, want []answer) {
	l.Helper()
	text := func(answers []answer) []string {
		var lines []string
		for _, a := range answers {
			lines = append(lines, fmt.Sprintf("%s %d %s", a.owner, a.qtype, a.wanted))
		}
		slices.Sort(lines)
		return lines
	}
	g, w := text(got), text(want)
	if slices.Equal(g, w) {
		return
	}
	if len(g) != len(w) {
		l.Fatalf("%s: %d RRsets, not %d", when, len(g), len(w))
	}
	for i := range g {
		if g[i] != w[i] {
			l.Fatalf("%s:\n got %s\nwant %s", when, g[i], w[i])
		}
	}
}

// TestImportGoesOnAfterLeaderKilled imports through one node and kills another,
// the leader, in the middle.
func TestImportGoesOnAfterLeaderKilled(t *testing.T) {
	if l := enterLab(t); l != nil {
		l.killLeaderWhileImporting(false)
	}
}

// TestImportResumesAfterItsLeaderKilled imports through the leader itself: the
// import, which has nobody to speak to, is stopped and run again at another node.
func TestImportResumesAfterItsLeaderKilled(t *testing.T) {
	if l := enterLab(t); l != nil {
		l.killLeaderWhileImporting(true)
	}
}

func (l *lab) killLeaderWhileImporting(through bool) {
	l.Helper()
	c, domains := l.importable()
	leader := c.leader(1, 2, 3)
	left := slices.DeleteFunc([]int{1, 2, 3}, func(i int) bool { return i == leader })
	at := left[0]
	if through {
		at = leader
	}
	cmd := exec.Command(c.binary, "domain", "import", customersFile)
	cmd.Env = append(os.Environ(), "AUTHD_ADDR="+c.apiURL(at), "AUTHD_TOKEN="+c.token)
	importing := l.start("import", cmd)
	done := 0
	l.eventually(labSettle, "an import in its middle", func() error {
		var page struct {
			Items []json.RawMessage `json:"items"`
		}
		c.call(left[1], "GET", "/v1/domains?limit=1000", nil, &page)
		if done = len(page.Items); done > 0 {
			return nil
		}
		if !importing.running() {
			return fmt.Errorf("it ended: %w", errStop)
		}
		return errors.New("nothing yet")
	})
	c.kill(leader)
	if done >= domains {
		l.Fatalf("all %d domains were there before the leader was killed", done)
	}
	if through {
		importing.end(syscall.SIGTERM)
	}
	<-importing.done
	if through && importing.err == nil {
		l.Fatal("the import through the killed node says that it is done")
	}
	l.Logf("the leader was killed with at least %d of %d domains imported; the import ended: %v", done, domains, importing.err)
	l.eventually(2*time.Minute, "an import resumed", func() error {
		out, err := c.cli(left[1], "domain", "import", customersFile)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
	if _, imported := c.mustAgree("with the leader killed in the middle of the import", left...); imported != domains {
		l.Fatalf("%d domains were imported, not %d", imported, domains)
	}
	c.serve(leader)
	c.mustAgree("once that node is back", 1, 2, 3)
}

// TestKillLeaderSameAnswersEverywhere asks all the time while the leader is
// killed: the others go on answering, writes come back, and the node that
// returns answers the same.
func TestKillLeaderSameAnswersEverywhere(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	c := l.startDev(l.build("lab"))
	c.platform("default")
	c.add("send.shop.example", "delegated")
	c.add("store.example", "cname")
	all, _ := c.mustAgree("before", 1, 2, 3)
	leader := c.leader(1, 2, 3)
	left := slices.DeleteFunc([]int{1, 2, 3}, func(i int) bool { return i == leader })
	c.kill(leader)
	for asked := 0; ; asked++ {
		l.mustAnswer("without the leader", all, c.dns(left[0]), c.dns(left[1]))
		r, err := c.try(left[0], "POST", "/v1/tenants/acme/domains", map[string]any{"domain": "send.late.example", "mode": "delegated", "pool": "default"})
		if err != nil {
			l.Fatal(err)
		}
		if r.status == 201 {
			break
		}
		if r.status != 503 {
			l.Fatalf("a write without a leader: %d\n%s", r.status, r.body)
		}
		if asked == 1000 {
			l.Fatal("no new leader takes writes")
		}
	}
	if now := c.leader(left...); now == leader {
		l.Fatalf("node %d, which was killed, is shown as leader still", leader)
	}
	c.mustAgree("after a write to the new leader", left...)
	c.serve(leader)
	all, _ = c.mustAgree("with the killed node back", 1, 2, 3)
	mine, _ := c.expected(leader)
	mustEqual(l, "at the API of the killed node", mine, all)
}

// dataFiles are all files that a cluster wrote, and what its processes printed.
func (c *cluster) dataFiles() (files []string) {
	c.Helper()
	err := filepath.WalkDir(c.lab.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && path != c.binary && !strings.HasPrefix(filepath.Base(path), "authd-") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	return files
}
